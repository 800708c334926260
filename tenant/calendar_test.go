package tenant

import (
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"
)

func zone(t interface{ Fatal(...any) }, name string) *time.Location {
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestWindow(t *testing.T) {
	f := func(c Calendar, p Period, at, from, to string) {
		t.Helper()
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		a, b := c.Window(p, now)
		form := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
		if form(a) != from || form(b) != to {
			t.Errorf("%s at %s: %s to %s, want %s to %s", p, at, form(a), form(b), from, to)
		}
	}
	berlin, beirut, johns := Calendar{Zone: zone(t, "Europe/Berlin")}, Calendar{Zone: zone(t, "Asia/Beirut")}, Calendar{Zone: zone(t, "America/St_Johns")}
	f(Calendar{}, Day, "2026-11-22T23:59:59Z", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z")
	f(Calendar{}, Week, "2026-11-22T12:00:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z") // a Sunday
	f(Calendar{}, Week, "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z")
	f(Calendar{}, Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
	f(Calendar{}, Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z")
	f(berlin, Day, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z") // 23 hours
	f(berlin, Day, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z") // 25 hours
	f(berlin, Month, "2026-10-31T23:30:00Z", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z")
	f(beirut, Day, "2026-03-29T12:00:00Z", "2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z") // no midnight
	f(johns, Day, "2026-11-22T03:29:59Z", "2026-11-21T03:30:00Z", "2026-11-22T03:30:00Z")
	if a, b := (&Calendar{}).Window(Total, time.Now()); !a.IsZero() || !b.IsZero() {
		t.Error("the whole time has an end")
	}
}

// A zone is changed to the other side of the world and back within a day.
func TestChangeOfZone(t *testing.T) {
	tokyo, honolulu := zone(t, "Asia/Tokyo"), zone(t, "Pacific/Honolulu")
	at := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	c, _ := (&Calendar{Zone: honolulu}).Change(tokyo, at) // Honolulu: the 22nd at 4:00, until 10:00Z of the 23rd
	f := func(at time.Time, from, to time.Time) {
		t.Helper()
		a, b := c.Window(Day, at)
		if !a.Equal(from) || !b.Equal(to) {
			t.Errorf("at %s: %s to %s", at, a.UTC(), b.UTC())
		}
	}
	hour := func(d, h int) time.Time { return time.Date(2026, 11, d, h, 0, 0, 0, time.UTC) }
	f(hour(22, 14), hour(22, 10), hour(23, 10))
	f(hour(22, 23), hour(22, 10), hour(23, 10)) // the 23rd in Tokyo since 15:00Z
	f(hour(23, 10), hour(23, 10), hour(23, 15))
	f(hour(23, 15), hour(23, 15), hour(24, 15))

	c, _ = (&Calendar{Zone: tokyo}).Change(honolulu, at) // Tokyo: the 22nd at 23:00
	f(hour(22, 14), hour(21, 15), hour(22, 15))
	f(hour(22, 15), hour(21, 15), hour(23, 10)) // the 22nd goes on in Honolulu
	f(hour(23, 10), hour(23, 10), hour(24, 10))
}

// Whatever zones are chosen and when, periods follow one another without a gap,
// none begins within another, and a day's worth is not had more often than days
// have gone by in some zone.
func TestPeriodsFollow(t *testing.T) {
	names := []string{"UTC", "Asia/Tokyo", "Pacific/Honolulu", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu", "Europe/Berlin", "America/St_Johns", "Asia/Beirut"}
	rapid.Check(t, func(t *rapid.T) {
		any := func() *time.Location { return zone(t, rapid.SampledFrom(names).Draw(t, "zone")) }
		p := rapid.SampledFrom([]Period{Day, Week, Month}).Draw(t, "period")
		now := time.Unix(rapid.Int64Range(1_700_000_000, 1_900_000_000).Draw(t, "start"), 0)
		begin := now
		c := &Calendar{Zone: any()}
		from, to := c.Window(p, now)
		begun := 1
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(1, 90*3600).Draw(t, "seconds")) * time.Second)
			if rapid.Bool().Draw(t, "change") {
				c, _ = c.Change(any(), now)
			}
			a, b := c.Window(p, now)
			if now.Before(a) || !now.Before(b) {
				t.Fatalf("%s is not between %s and %s", now, a, b)
			}
			switch {
			case a.Equal(from): // its end may move with the zone, and it goes on
			case now.Before(to):
				t.Fatalf("a new %s at %s, but the last runs until %s", p, a, to)
			default:
				begun++
			}
			from, to = a, b
		}
		if days := int(now.Sub(begin)/(24*time.Hour)) + 3; p == Day && begun > days {
			t.Fatalf("%d days had, %d gone by", begun, days)
		}
	})
}
