package limiter

import (
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"

	"bulkhead/tenant"
)

// The numbers of the kinds say what the names do.
func TestOwnersAreThoseOfHas(t *testing.T) {
	ids := rapid.SampledFrom([]string{"", "a", "b", "*"})
	rapid.Check(t, func(t *rapid.T) {
		by := By{Project: ids.Draw(t, "project"), Key: ids.Draw(t, "key"), Agent: ids.Draw(t, "agent"), User: ids.Draw(t, "user"), Lent: rapid.Bool().Draw(t, "lent")}
		for k, name := range ownerKinds {
			b := &tenant.Budget{Kind: name, Of: ids.Draw(t, "of")}
			kind, id := ownerOf(b)
			if kind != ownerKind(k) {
				t.Fatalf("%s is %d, want %d", name, kind, k)
			}
			of, ok := by.of(kind)
			if has := ok && of == id; has != by.Has(b) {
				t.Fatalf("%+v has %+v: %t, want %t", by, b, has, by.Has(b))
			}
		}
	})
}

// What is remembered of periods is what the calendar says, whatever the clock
// does and however often the zone changes.
func TestPeriodsAreTheCalendars(t *testing.T) {
	var zones []*time.Location
	for _, name := range []string{"UTC", "Asia/Tokyo", "Pacific/Honolulu", "Europe/Berlin", "America/St_Johns"} {
		z, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		zones = append(zones, z)
	}
	rapid.Check(t, func(t *rapid.T) {
		var p periods
		now := time.Date(2026, 11, 18, 0, 0, 0, 0, time.UTC)
		c := &tenant.Calendar{Zone: zones[0]}
		b := tenant.Budget{Calendar: c}
		for range 100 {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				c, _ = c.Change(rapid.SampledFrom(zones).Draw(t, "zone"), now)
			case 1: // as a policy that is loaded again
				again := *c
				c = &again
			case 2:
				b.Calendar = nil
			default:
				b.Calendar = c
			}
			now = now.Add(time.Duration(rapid.Int64Range(-30*3600, 90*3600).Draw(t, "seconds")) * time.Second)
			b.Period = rapid.SampledFrom([]tenant.Period{tenant.Day, tenant.Week, tenant.Month, tenant.Total}).Draw(t, "period")
			from, to := p.of(&b, now.UnixMicro())
			if f, e := spanOf(&b, now.UnixMicro()); from != f || to != e {
				t.Fatalf("%s at %s: %s to %s, want %s to %s", b.Period, now, moment(from), moment(to), moment(f), moment(e))
			}
			if len(p.known) > maxPeriods {
				t.Fatalf("%d are remembered", len(p.known))
			}
		}
	})
}

func TestLackOf(t *testing.T) {
	f := func(limit, used, held, n int64, want lack) {
		t.Helper()
		if got := lackOf(limit, used, held, n); got != want {
			t.Errorf("limit %d, used %d, held %d: %d more: %d, want %d", limit, used, held, n, got, want)
		}
	}
	f(10, 4, 3, 3, lackNothing)
	f(10, 4, 3, 4, lackHeld)
	f(10, 4, 3, 6, lackHeld)
	f(10, 4, 3, 7, lackSpent)
	f(10, 0, 0, 11, lackSpent)
	f(10, 12, 0, 0, lackNothing)
	f(10, 12, 0, 1, lackSpent)
	f(-5, 0, 0, 1, lackSpent)
	f(-5, 0, 0, 0, lackNothing)
	// The largest numbers there are do not wrap.
	const big = 1<<63 - 1
	f(big, 0, 0, tenant.MaxBudget, lackNothing)
	f(big, 0, 0, tenant.MaxBudget+1, lackSpent)
	f(big, maxSpent, 0, 1, lackSpent)
	f(10, maxSpent, maxNano<<17, big, lackSpent)
	if n := left(10, maxSpent, maxNano<<17); n != 0 {
		t.Errorf("%d are left", n)
	}
	// An attempt that may cost more than any holds nothing.
	n := needOf(&Ask{Nano: big, Tokens: big})
	if n.nano != maxNano || lackOf(tenant.MaxBudget, 0, 0, n.least) != lackSpent {
		t.Errorf("%+v", n)
	}
	n = needOf(&Ask{Nano: maxNano + 1, LeastNano: maxNano + 1})
	if lackOf(tenant.MaxBudget, 0, 0, n.least) != lackSpent {
		t.Errorf("%+v", n)
	}
	n = needOf(&Ask{Nano: maxNano + 1, LeastNano: maxNano})
	if n.nano != maxNano || lackOf(tenant.MaxBudget, 0, 0, n.least) != lackNothing {
		t.Errorf("%+v", n)
	}
	// What is reported is added up to where it stands still.
	var u Used
	for range 10 {
		u.add(Used{Nano: big, Tokens: big, Requests: big})
		u.add(Used{Nano: -big, Tokens: -1, Requests: -1})
	}
	if u != (Used{maxSpent, maxSpent, maxSpent}) {
		t.Errorf("%+v", u)
	}
}

func TestAmount(t *testing.T) {
	f := func(unit tenant.Unit, n int64, want string) {
		t.Helper()
		if got := amount(unit, n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	f(tenant.USD, 0, "0 USD")
	f(tenant.USD, 1, "0.000000001 USD")
	f(tenant.USD, 12_500_000_000, "12.5 USD")
	f(tenant.USD, 100_000_000_000, "100 USD")
	f(tenant.USD, tenant.MaxBudget, "9000000 USD")
	f(tenant.Tokens, 1000, "1000 tokens")
	f(tenant.Requests, 0, "0 requests")
}
