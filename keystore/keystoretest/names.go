package keystoretest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	"bulkhead/keystore"
	"bulkhead/tenant"
)

// Names is a keystore.Names in memory.
type Names struct {
	// Changed, if set, is called after each change. Set it before Names is used.
	Changed func(s tenant.Scope)

	mu        sync.Mutex
	companies map[string]map[string]keystore.Sealed // by company id and provider
	err       error
}

// NewNames returns empty Names.
func NewNames() *Names { return &Names{companies: map[string]map[string]keystore.Sealed{}} }

// Fail makes every call from now on fail with err; nil ends that.
func (n *Names) Fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
}

// CredentialNames implements keystore.Names.
func (n *Names) CredentialNames(_ context.Context, s tenant.Scope) ([]keystore.Sealed, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Values(n.companies[s.ID().String()])), n.err
}

// PutCredentialName implements keystore.Names.
func (n *Names) PutCredentialName(_ context.Context, s tenant.Scope, c keystore.Sealed) error {
	return n.change(s, func(names map[string]keystore.Sealed) { names[c.Provider] = c })
}

// DeleteCredentialName implements keystore.Names.
func (n *Names) DeleteCredentialName(_ context.Context, s tenant.Scope, provider string) error {
	return n.change(s, func(names map[string]keystore.Sealed) { delete(names, provider) })
}

func (n *Names) change(s tenant.Scope, do func(map[string]keystore.Sealed)) error {
	id := s.ID().String()
	n.mu.Lock()
	err := n.err
	if err == nil {
		if n.companies[id] == nil {
			n.companies[id] = map[string]keystore.Sealed{}
		}
		do(n.companies[id])
	}
	n.mu.Unlock()
	if err == nil && n.Changed != nil {
		n.Changed(s)
	}
	return err
}

// RunNames tests a keystore.Names. open gives an empty one, a function that
// makes a company in it, and one that returns the generation that a Scope of
// that company would have if it were made now.
func RunNames(t *testing.T, open func(t *testing.T) (names keystore.Names, company func() tenant.Scope, generation func(s tenant.Scope) int64)) {
	names, company, generation := open(t)
	ctx := t.Context()
	a, b := company(), company()
	want := func(s tenant.Scope, want ...keystore.Sealed) {
		t.Helper()
		got, err := names.CredentialNames(ctx, s)
		if err != nil || len(got) != len(want) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
		for _, w := range want {
			if !slices.ContainsFunc(got, func(g keystore.Sealed) bool { return equal(g, w) }) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
		}
	}
	// Each change is seen by the Scopes made afterwards, and no other company's.
	change := func(s, other tenant.Scope, do func() error) {
		t.Helper()
		before, others := generation(s), generation(other)
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if generation(s) <= before {
			t.Fatalf("the generation of the policy was %d and is %d after a change", before, generation(s))
		}
		if generation(other) != others {
			t.Fatal("another company's policy has another generation")
		}
	}
	put := func(s, other tenant.Scope, c keystore.Sealed) {
		t.Helper()
		c.Blob = nil
		change(s, other, func() error { return names.PutCredentialName(ctx, s, c) })
	}
	noted := func(id, provider string, version int64) keystore.Sealed {
		c := row(id, provider, version)
		c.Blob = nil
		return c
	}

	want(a)
	put(a, b, noted("cred_a", "openai", 1))
	put(a, b, noted("cred_g", "groq", 7)) // whatever the version is
	want(a, noted("cred_a", "openai", 1), noted("cred_g", "groq", 7))
	want(b)
	put(a, b, noted("cred_a", "openai", 4))
	put(a, b, noted("cred_a", "openai", 4)) // nothing differs
	put(a, b, noted("cred_a", "openai", 1)) // begun anew
	put(b, a, noted("cred_b", "openai", 2))
	want(a, noted("cred_a", "openai", 1), noted("cred_g", "groq", 7))
	want(b, noted("cred_b", "openai", 2))

	change(a, b, func() error { return names.DeleteCredentialName(ctx, a, "openai") })
	want(a, noted("cred_g", "groq", 7))
	want(b, noted("cred_b", "openai", 2))
	for _, none := range []string{"openai", "OpenAI", "%", ""} {
		if err := names.DeleteCredentialName(ctx, a, none); err != nil {
			t.Fatal(err)
		}
	}
	want(a, noted("cred_g", "groq", 7))

	var zero tenant.Scope
	panics(t, func() { _, _ = names.CredentialNames(ctx, zero) })
	panics(t, func() { _ = names.PutCredentialName(ctx, zero, noted("cred_a", "openai", 1)) })
	panics(t, func() { _ = names.DeleteCredentialName(ctx, zero, "openai") })
}
