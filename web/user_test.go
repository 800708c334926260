package web

import (
	"strings"
	"testing"

	"bulkhead/tenant"
)

// The end user is booked by an id that only the company's own calls make, and
// never by name. safety_identifier goes before user.
func TestEndUser(t *testing.T) {
	l := newLab(t, labOptions{})
	acme, s := l.company("acme", tenant.KeyLive, nil)
	beta, _ := l.company("beta", tenant.KeyLive, nil)
	f := func(key, more string) string {
		t.Helper()
		before := len(l.booked())
		if a := l.chat(key, "up/ok", more); a.status != 200 {
			t.Fatalf("%s", a)
		}
		all := l.booked()
		if len(all) != before+1 {
			t.Fatalf("%d entries, want %d", len(all), before+1)
		}
		return all[before].UserID
	}
	ann := f(acme, `,"user":"ann"`)
	if ann != tenant.UserID(s, "ann") || strings.Contains(ann, "ann") {
		t.Errorf("booked as %q", ann)
	}
	if other := f(beta, `,"user":"ann"`); other == ann || other == "" {
		t.Errorf("beta's ann is %q", other)
	}
	if got := f(acme, `,"user":"bob","safety_identifier":"ann"`); got != ann {
		t.Errorf("booked as %q, want %q", got, ann)
	}
	if got := f(acme, ""); got != "" {
		t.Errorf("booked as %q without a name", got)
	}
}
