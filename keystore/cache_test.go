package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/keystore"
	"bulkhead/keystore/keystoretest"
	"bulkhead/provider"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// reads returns how many reads of the store f causes.
func (f *fixture) reads(do func()) int {
	before := f.store.Reads()
	do()
	return f.store.Reads() - before
}

func TestWarm(t *testing.T) {
	var clock atomic.Int64 // seconds
	clock.Store(1000)
	f := newFixture(t, keystore.Options{Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
	a := tenanttest.Scope(t, "a")
	f.put(a, "openai", secretA)
	want := func(s tenant.Scope, reads int) {
		t.Helper()
		if got := f.reads(func() { f.want(s, "openai", secretA) }); got != reads {
			t.Fatalf("%d reads of the store, want %d", got, reads)
		}
	}
	want(a, 1) // Put left the data key in memory
	want(a, 0)
	clock.Add(5*60 - 1)
	want(a, 0)
	clock.Add(1) // the TTL is over, the data key's too: it is read anew, and nobody waits
	before := f.store.Reads()
	f.want(a, "openai", secretA)
	for f.store.Reads() < before+2 {
		runtime.Gosched()
	}
	f.want(a, "openai", secretA)
	if n := f.store.Reads() - before; n != 2 {
		t.Errorf("%d reads, want 2", n)
	}
	f.Forget(tenanttest.Scope(t, "b").ID().String())
	want(a, 0)
	f.Forget(a.ID().String())
	want(a, 2)
}

// TestStoreAway: what was opened goes on for as long as the store is away, without
// waiting for it each time, and is read anew when it is back. A change that was
// heard of ends that: what was read before it is not used.
func TestStoreAway(t *testing.T) {
	var clock atomic.Int64 // seconds
	clock.Store(1000)
	w := tenanttest.New(t, tenant.Options{})
	key, a := w.Company("a", tenant.KeyLive, func(c *tenant.Company) { c.Generation = 5 })
	f := newFixture(t, keystore.Options{Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
	f.put(a, "openai", secretA)
	f.want(a, "openai", secretA)
	f.store.Fail(errors.New("the store is away"))
	before := f.store.Reads()
	for range 10 { // 50 minutes, and 100 calls each time
		clock.Add(5 * 60)
		for range 100 {
			f.want(a, "openai", secretA)
		}
	}
	for f.store.Reads() < before+10 {
		runtime.Gosched()
	}
	if n := f.store.Reads() - before; n > 20 {
		t.Errorf("the store was asked %d times", n)
	}
	f.store.Fail(nil)
	f.fresh().put(a, "openai", secretB)
	clock.Add(5 * 60)
	for got := secretA; got != secretB; runtime.Gosched() {
		c, err := f.Credential(t.Context(), a, "openai")
		if err != nil {
			t.Fatal(err)
		}
		got = c.Secret.Reveal()
	}
	f.store.Fail(errors.New("the store is away"))
	w.Edit(a, func(c *tenant.Company) { c.Generation = 6 })
	after, err := w.Authenticate(t.Context(), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Credential(t.Context(), after, "openai"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after a change that was heard of: %v", err)
	}
}

// A change that another process made is seen through the policy's generation,
// and calls that began before it do not undo that.
func TestGeneration(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	key, before := w.Company("a", tenant.KeyLive, func(c *tenant.Company) { c.Generation = 5 })
	f := newFixture(t, keystore.Options{})
	f.put(before, "openai", secretA)
	f.want(before, "openai", secretA)
	f.fresh().put(before, "openai", secretB)
	f.want(before, "openai", secretA) // its own policy is the old one, too

	w.Edit(before, func(c *tenant.Company) { c.Generation = 6 })
	after, err := w.Authenticate(t.Context(), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	f.want(after, "openai", secretB)
	if n := f.reads(func() { f.want(before, "openai", secretB); f.want(after, "openai", secretB) }); n != 0 {
		t.Fatalf("an old Scope caused %d reads, want 0", n)
	}

	// A load for the old policy that ends after one for the new one does not
	// take its place.
	cold := f.fresh()
	f.store.AfterRead = func() {
		f.store.AfterRead = nil // once
		cold.want(after, "openai", secretB)
	}
	cold.want(before, "openai", secretB)
	if n := cold.reads(func() { cold.want(after, "openai", secretB) }); n != 0 {
		t.Fatalf("what was just opened caused %d reads", n)
	}
}

// A load that began before Forget, Put or Delete is not kept.
func TestLoadOvertaken(t *testing.T) {
	f := func(overtake func(f *fixture, s tenant.Scope), stale bool) {
		t.Helper()
		a := tenanttest.Scope(t, "a")
		store := keystoretest.NewMemory()
		f := &fixture{keystore.New(store, master(t, masterText), keystore.Options{}), t, store, keystore.Options{}}
		f.put(a, "openai", secretA)
		store.AfterRead = func() {
			store.AfterRead = nil // once
			overtake(f, a)
		}
		got, err := f.Credential(context.Background(), a, "openai")
		if err != nil || got.Secret.Reveal() != secretA {
			t.Fatalf("a call that began before: %v", err)
		}
		got, err = f.Credential(context.Background(), a, "openai")
		if still := err == nil && got.Secret.Reveal() == secretA; still != stale {
			t.Fatalf("the next call: still the old one is %t, want %t", still, stale)
		}
	}
	f(func(*fixture, tenant.Scope) {}, true)
	f(func(f *fixture, s tenant.Scope) { f.put(s, "openai", secretB) }, false)
	f(func(f *fixture, s tenant.Scope) { _ = f.Delete(context.Background(), s, f.store.Row(s, "openai").ID) }, false)
	f(func(f *fixture, s tenant.Scope) { f.fresh().put(s, "openai", secretB); f.Forget(s.ID().String()) }, false)
}

// Erasing destroys the data key and forgets: then nothing opens any more.
func TestForget(t *testing.T) {
	f := newFixture(t, keystore.Options{})
	a := tenanttest.Scope(t, "a")
	f.put(a, "openai", secretA)
	f.want(a, "openai", secretA)
	f.store.SetDataKey(a, nil)
	f.Forget(a.ID().String())
	if _, err := f.Credential(t.Context(), a, "openai"); err == nil {
		t.Fatal("opened without a data key")
	}
	if f.store.RawDataKey(a) != nil {
		t.Fatal("a read made a new data key")
	}
}

// One company's credentials push out its own only, and the whole is bounded.
func TestCacheBounded(t *testing.T) {
	f := newFixture(t, keystore.Options{Cached: 8, CachedPerCompany: 3, CachedDataKeys: 100})
	a, b := tenanttest.Scope(t, "a"), tenanttest.Scope(t, "b")
	names := make([]string, 50)
	for i := range names {
		names[i] = fmt.Sprint("p", i)
		f.put(a, names[i], secretA)
	}
	f.put(b, "openai", secretB)
	f.want(b, "openai", secretB)
	all := func() {
		for _, name := range names {
			f.want(a, name, secretA)
		}
	}
	all()
	if n := f.reads(func() { f.want(b, "openai", secretB) }); n != 0 {
		t.Fatalf("a flood of one company's cost another %d reads", n)
	}
	// Three are kept; going through all pushes some out on the way.
	if n := f.reads(all); n < len(names)-3 {
		t.Fatalf("%d reads for %d credentials, want at least all but 3", n, len(names))
	}
	if n := f.reads(func() { f.want(a, names[49], secretA) }); n != 0 {
		t.Fatalf("what was just opened caused %d reads", n)
	}

	var many []tenant.Scope
	for i := range 40 {
		s := tenanttest.Scope(t, fmt.Sprint("c", i))
		f.put(s, "openai", secretA)
		many = append(many, s)
	}
	each := func() {
		for _, s := range many {
			f.want(s, "openai", secretA)
		}
	}
	each()
	if n := f.reads(each); n < len(many)-8 {
		t.Fatalf("%d reads for %d companies, want at least all but 8", n, len(many))
	}
}

// All who want the same at once share one load; another company has its own,
// and who saw a change does not share with who did not.
func TestSingleFlight(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	key, a := w.Company("a", tenant.KeyLive, func(c *tenant.Company) { c.Generation = 1 })
	w.Edit(a, func(c *tenant.Company) { c.Generation = 2 })
	later, err := w.Authenticate(t.Context(), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	_, b := w.Company("a", tenant.KeyLive, func(c *tenant.Company) { c.Generation = 1 })

	f := newFixture(t, keystore.Options{})
	f.put(a, "openai", secretA)
	f.put(b, "openai", secretB)
	cold := f.fresh()
	const each = 8
	began, release := make(chan struct{}, 3*each), make(chan struct{})
	f.store.AfterRead = func() { began <- struct{}{}; <-release }
	var wg sync.WaitGroup
	for range each {
		for _, s := range []tenant.Scope{a, later, b} {
			want := secretA
			if s == b {
				want = secretB
			}
			wg.Go(func() {
				c, err := cold.Credential(context.Background(), s, "openai")
				if err != nil || c.Secret.Reveal() != want || c.Company != s.ID().String() {
					t.Errorf("credential of %q, %v", c.Company, err)
				}
			})
		}
	}
	for range 3 { // one load per company and generation has begun, whoever was first
		<-began
	}
	close(release)
	wg.Wait()
	if n := f.store.Reads(); n > 3*each*2 {
		t.Fatalf("%d reads", n)
	}
}

// The load is shared, so it outlives the request that began it.
func TestLoadOutlivesCaller(t *testing.T) {
	f := newFixture(t, keystore.Options{})
	a := tenanttest.Scope(t, "a")
	f.put(a, "openai", secretA)
	ctx, cancel := context.WithCancel(t.Context())
	f.store.AfterRead = cancel
	if c, err := f.Credential(ctx, a, "openai"); err != nil || c.Secret.Reveal() != secretA {
		t.Fatal(err)
	}
}

// Whatever stands in a row that was changed: no panic, no credential.
func FuzzOpen(f *testing.F) {
	a := tenanttest.Scope(f, "a")
	fx := newFixture(f, keystore.Options{})
	fx.put(a, "openai", secretA)
	good, key := fx.store.Row(a, "openai"), fx.store.RawDataKey(a)
	f.Add(good.Blob, good.ID, int64(2), key)
	f.Add([]byte{}, "", int64(0), []byte{})
	f.Add(good.Blob[:28], good.ID, int64(1), key)
	f.Fuzz(func(t *testing.T, blob []byte, id string, version int64, wrapped []byte) {
		if string(blob) == string(good.Blob) && id == good.ID && version == good.Version && string(wrapped) == string(key) {
			return
		}
		fx := newFixture(t, keystore.Options{})
		fx.store.SetRow(a, "openai", keystore.Sealed{ID: id, Provider: "openai", Version: version, Blob: blob})
		fx.store.SetDataKey(a, wrapped)
		fx.wantSealed(a, "openai")
		if _, err := fx.Put(context.Background(), a, keystore.NewCredential{Provider: "openai", Secret: provider.NewSecret(secretA)}); err != nil && strings.Contains(err.Error(), secretA) {
			t.Fatal("the error shows the secret")
		}
	})
}

func BenchmarkCredential(b *testing.B) {
	f := newFixture(b, keystore.Options{})
	a := tenanttest.Scope(b, "a")
	f.put(a, "openai", secretA)
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := f.Credential(ctx, a, "openai"); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
