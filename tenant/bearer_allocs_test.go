//go:build !race

package tenant_test

import (
	"testing"

	"bulkhead/tenant"
)

// Allocations of a warm token, and of a warm key that was given out for one.
const allocsWarm = 0

func TestTokenAllocations(t *testing.T) {
	w, i, s := trusting(t, false)
	text := []byte(i.Token(s.ID().Audience(), "ann"))
	wantScope(t, w.Directory, string(text))
	x, err := w.Exchange(t.Context(), tenant.Exchange{Token: text, Provider: "wip_" + s.ID().Locator(), AccountID: "svc_acct_1"})
	if err != nil {
		t.Fatal(err)
	}
	for what, key := range map[string][]byte{"a token": text, "a key given out": []byte(x.Value)} {
		n := testing.AllocsPerRun(100, func() {
			if _, err := w.Authenticate(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		})
		if n > allocsWarm {
			t.Errorf("%s: %.1f allocations, at most %d", what, n, allocsWarm)
		}
	}
}
