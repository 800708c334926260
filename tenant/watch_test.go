package tenant_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// feed is a Feed whose changes the test makes.
type feed struct {
	mu      sync.Mutex
	changed []string // the generation of each is its place, from 1
	err     error
	asked   int
}

func (f *feed) Changes(_ context.Context, after int64) ([]string, int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.err != nil {
		return nil, after, f.err
	}
	return slices.Clone(f.changed[after:]), int64(len(f.changed)), nil
}

func (f *feed) set(err error, changed ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	f.changed = append(f.changed, changed...)
}

// TestFollow revokes a key behind the Directory's back, as another gateway
// does: the feed alone tells.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { cancel(); synctest.Wait() }()
		w := tenanttest.New(t, tenant.Options{})
		key, s := w.Company("acme", tenant.KeyLive, nil)
		other, _ := w.Company("other", tenant.KeyLive, nil)
		id := s.ID().String()
		var told []string
		f := &feed{changed: []string{id}} // before the start
		if err := w.Follow(ctx, f, tenant.Watch{Changed: func(c string) bool { told = append(told, c); return true }}); err != nil {
			t.Fatal(err)
		}
		w.RevokeQuietly(s, s.KeyID())
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if _, err := w.Authenticate(ctx, []byte(key)); err != nil || told != nil {
			t.Fatalf("what was there at the start was told as a change: %v, %v", told, err)
		}
		loads := w.Loads()
		f.set(nil, id)
		time.Sleep(time.Second)
		synctest.Wait()
		if _, err := w.Authenticate(ctx, []byte(key)); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("a second after the change the key gives %v", err)
		}
		if !slices.Equal(told, []string{id}) {
			t.Errorf("told %v", told)
		}
		if _, err := w.Authenticate(ctx, []byte(other)); err != nil || w.Loads() != loads+2 {
			t.Errorf("%d look-ups, want 2, of the changed company and its key: %v", w.Loads()-loads, err)
		}
	})
}

// TestFollowAway lets the feed fail: known keys go on for MaxStale, then all are
// refused, and the first answer brings them back.
func TestFollowAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { cancel(); synctest.Wait() }()
		w := tenanttest.New(t, tenant.Options{})
		key, _ := w.Company("acme", tenant.KeyLive, nil)
		var said []bool
		f := &feed{}
		if err := w.Follow(ctx, f, tenant.Watch{MaxStale: time.Minute, Failed: func(err error) { said = append(said, err != nil) }}); err != nil {
			t.Fatal(err)
		}
		f.set(errors.New("away"))
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if _, err := w.Authenticate(ctx, []byte(key)); err != nil || w.Stale() < 58*time.Second {
			t.Errorf("within MaxStale: %v, stale for %s", err, w.Stale())
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if _, err := w.Authenticate(ctx, []byte(key)); !fault.Is(err, fault.Unavailable) {
			t.Errorf("after MaxStale: %v", err)
		}
		f.set(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if _, err := w.Authenticate(ctx, []byte(key)); err != nil {
			t.Errorf("after the return: %v", err)
		}
		if !slices.Equal(said, []bool{true, false}) {
			t.Errorf("said %v, want one beginning and one end", said)
		}
	})
}

func TestFollowCannotBegin(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	if err := w.Follow(t.Context(), &feed{err: errors.New("away")}, tenant.Watch{}); err == nil {
		t.Error("a feed that is away was followed")
	}
	if w.Stale() != 0 {
		t.Error("a Directory that is not watched is stale")
	}
}

func TestStatusOfCompany(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	_, s := w.Company("acme", tenant.KeyLive, nil)
	f := func(id string, want tenant.Status, wantErr bool) {
		t.Helper()
		if got, err := w.Status(t.Context(), id); got != want || (err != nil) != wantErr {
			t.Errorf("Status(%q) = %v, %v", id, got, err)
		}
	}
	f(s.ID().String(), tenant.Active, false)
	w.Edit(s, func(c *tenant.Company) { c.Status = tenant.Suspended })
	f(s.ID().String(), tenant.Suspended, false)
	w.Edit(s, func(c *tenant.Company) { c.Status = tenant.Erased })
	f(s.ID().String(), tenant.Erased, false)
	f("org-0000000000", tenant.Erased, false)
	f("org-../../etc", "", true)
}

// TestFollowAgain: a change that could not be carried out is not forgotten when
// the feed has moved on.
func TestFollowAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { cancel(); synctest.Wait() }()
		w := tenanttest.New(t, tenant.Options{})
		var mu sync.Mutex // of the next two
		var told []string
		can := false
		f := &feed{}
		err := w.Follow(ctx, f, tenant.Watch{Changed: func(c string) bool {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, c)
			return can || c != "org-b"
		}})
		if err != nil {
			t.Fatal(err)
		}
		next := func(want ...string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(told, want) {
				t.Errorf("told %v, want %v", told, want)
			}
			told = nil
		}
		f.set(nil, "org-a", "org-b")
		next("org-a", "org-b")
		next("org-b")
		f.set(nil, "org-c", "org-b")
		next("org-c", "org-b") // once
		f.set(errors.New("away"))
		next()
		mu.Lock()
		can = true
		mu.Unlock()
		f.set(nil, "org-d")
		next("org-d", "org-b")
		next()
	})
}
