// Package memorytest is the contract of memory.Cache as a suite of tests. Each kind of
// cache passes the same one.
package memorytest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"bulkhead/memory"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// Names are ids that a cache might take for one another. The list only grows.
var Names = []string{
	"conv_1", "CONV_1", "conv_1 ", " conv_1", "conv_11", "conv_", "", "conv_%", "conv_*", "conv_?", "conv_[1]", "conv:1", "conv_1:tails", "tails", "due",
	"conv_1\x00", "conv_1\x002", "conv_1\n", "..", "../conv_1", "conv_é", "conv_e\u0301", "conv_ﬁ", "conv_fi", "{conv_1}", "}:conv:tails", "' OR 1=1", strings.Repeat("x", 300),
}

// Tail is a tail that says whose it is.
func Tail(version int64, says string) memory.Tail {
	body, err := json.Marshal(map[string]string{"says": says})
	if err != nil {
		panic(err)
	}
	return memory.Tail{Version: version, Items: []memory.Item{{ID: fmt.Sprint("msg_", version), Turn: version, Tokens: 3, Body: body}}}
}

func check(t *testing.T, c memory.Cache, s tenant.Scope, id string, want string, version int64) {
	t.Helper()
	got, ok := c.Get(t.Context(), s, id)
	if want == "" {
		if ok {
			t.Errorf("%q is there: %s", id, got.Items[0].Body)
		}
		return
	}
	if w := Tail(version, want); !ok || got.Version != version || len(got.Items) != 1 || string(got.Items[0].Body) != string(w.Items[0].Body) || got.Items[0].ID != w.Items[0].ID || got.Items[0].Turn != version {
		t.Errorf("%q of %s: %t, %+v, want %+v", id, s.ID(), ok, got, w)
	}
}

// Run runs the suite. open returns an empty cache.
func Run(t *testing.T, open func(t *testing.T) memory.Cache) {
	for name, test := range map[string]func(*testing.T, memory.Cache){
		"Tail": testTail, "Isolation": Isolation, "Bounds": testBounds, "AtOnce": testAtOnce,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func testTail(t *testing.T, c memory.Cache) {
	ctx, s := t.Context(), tenanttest.Scope(t, "acme")
	check(t, c, s, "conv_1", "", 0)
	c.Put(ctx, s, "conv_1", Tail(1, "one"))
	check(t, c, s, "conv_1", "one", 1)
	c.Put(ctx, s, "conv_1", Tail(2, "two"))
	check(t, c, s, "conv_1", "two", 2)
	c.Put(ctx, s, "conv_empty", memory.Tail{Version: 7})
	if got, ok := c.Get(ctx, s, "conv_empty"); !ok || got.Version != 7 || len(got.Items) != 0 {
		t.Errorf("an empty tail is %+v, %t", got, ok)
	}
	c.Drop(ctx, s, "conv_1")
	check(t, c, s, "conv_1", "", 0)
	c.Drop(ctx, s, "conv_1")
	// One that is too large takes the place of the one before, and is not kept.
	c.Put(ctx, s, "conv_1", Tail(3, "three"))
	c.Put(ctx, s, "conv_1", Tail(4, strings.Repeat("x", memory.MaxTail)))
	check(t, c, s, "conv_1", "", 0)
}

// Isolation checks that companies, and conversations of one, never meet, whatever
// they are called.
func Isolation(t *testing.T, c memory.Cache) {
	ctx := t.Context()
	w := tenanttest.New(t, tenant.Options{})
	var all []tenant.Scope
	for _, name := range []string{"acme", "Acme", "acme:", "beta"} {
		_, s := w.Company(name, tenant.KeyLive, nil)
		all = append(all, s)
	}
	says := func(s tenant.Scope, id string) string { return s.ID().String() + " says " + id }
	last := all[len(all)-1] // has none of its own
	for _, s := range all[:3] {
		for _, id := range Names {
			c.Put(ctx, s, id, Tail(1, says(s, id)))
		}
	}
	see := func(but tenant.Scope, gone bool) {
		t.Helper()
		for _, s := range all[:3] {
			for _, id := range Names {
				want := says(s, id)
				if gone && s.ID() == but.ID() {
					want = ""
				}
				check(t, c, s, id, want, 1)
			}
		}
	}
	see(last, false)
	for _, id := range Names {
		check(t, c, last, id, "", 0)
		c.Drop(ctx, last, id)
	}
	see(last, false)
	if err := c.Forget(ctx, last); err != nil {
		t.Error(err)
	}
	see(last, false)
	// Of names that look alike one goes at a time.
	c.Drop(ctx, all[0], Names[0])
	check(t, c, all[0], Names[0], "", 0)
	c.Put(ctx, all[0], Names[0], Tail(1, says(all[0], Names[0])))
	see(last, false)
	if err := c.Forget(ctx, all[1]); err != nil {
		t.Error(err)
	}
	see(all[1], true)
}

// testBounds: a company that has many keeps the newest, and takes nobody else's place.
func testBounds(t *testing.T, c memory.Cache) {
	ctx := t.Context()
	w := tenanttest.New(t, tenant.Options{})
	_, quiet := w.Company("quiet", tenant.KeyLive, nil)
	_, loud := w.Company("loud", tenant.KeyLive, nil)
	c.Put(ctx, quiet, "conv_1", Tail(1, "quiet"))
	for i := range memory.MaxCompany + 50 {
		c.Put(ctx, loud, fmt.Sprint("conv_", i), Tail(1, "loud"))
	}
	check(t, c, quiet, "conv_1", "quiet", 1)
	check(t, c, loud, fmt.Sprint("conv_", memory.MaxCompany+49), "loud", 1)
	kept := 0
	for i := range memory.MaxCompany + 50 {
		if _, ok := c.Get(ctx, loud, fmt.Sprint("conv_", i)); ok {
			kept++
		}
	}
	if kept != memory.MaxCompany {
		t.Errorf("%d are kept, want %d", kept, memory.MaxCompany)
	}
}

// testAtOnce is of use with the race detector.
func testAtOnce(t *testing.T, c memory.Cache) {
	w := tenanttest.New(t, tenant.Options{})
	var wg sync.WaitGroup
	for i := range 4 {
		_, s := w.Company(fmt.Sprint("company ", i), tenant.KeyLive, nil)
		for range 2 {
			wg.Go(func() {
				ctx := context.Background()
				for n := range 100 {
					id := Names[n%len(Names)]
					switch n % 7 {
					case 5:
						c.Drop(ctx, s, id)
					case 6:
						_ = c.Forget(ctx, s)
					default:
						c.Put(ctx, s, id, Tail(int64(i), s.ID().String()))
					}
					if got, ok := c.Get(ctx, s, id); ok && !strings.Contains(string(got.Items[0].Body), s.ID().String()) {
						t.Errorf("%s sees %s", s.ID(), got.Items[0].Body)
					}
				}
			})
		}
	}
	wg.Wait()
}
