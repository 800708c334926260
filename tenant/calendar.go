package tenant

import "time"

// Period is how long a budget counts until it begins anew.
type Period string

// The periods: calendar days, weeks from Monday, months, and for ever.
const (
	Day   Period = "day"
	Week  Period = "week"
	Month Period = "month"
	Total Period = "total"
)

// Calendar says when periods begin, for the owner of a budget. The zero value
// counts in UTC. It is immutable.
//
// A change of the zone never opens a period early, or a company could have a
// new day whenever it likes: the period that ran at the change runs on to its
// end in the zone before. What then follows in the new zone is a new period
// only if its date is later.
type Calendar struct {
	Zone      *time.Location // nil is UTC
	Before    *time.Location // the zone until ChangedAt, nil is UTC
	ChangedAt time.Time      // zero: it was never changed
}

// Change returns the calendar of who changes the zone at a moment; ok is false
// while periods still follow from an earlier change, for at most two months.
func (c *Calendar) Change(zone *time.Location, at time.Time) (changed *Calendar, ok bool) {
	for _, p := range []Period{Day, Week, Month} {
		from, to := c.Window(p, at)
		if f, t := natural(p, zoneOf(c.Zone), at); !f.Equal(from) || !t.Equal(to) {
			return c, false
		}
	}
	return &Calendar{Zone: zone, Before: c.Zone, ChangedAt: at}, true
}

// Window returns the period that holds at: from is in it, to is not. Total has
// no end: to is the zero time.
func (c *Calendar) Window(p Period, at time.Time) (from, to time.Time) {
	if p == Total {
		return time.Time{}, time.Time{}
	}
	if c.ChangedAt.IsZero() {
		return natural(p, zoneOf(c.Zone), at)
	}
	before := zoneOf(c.Before)
	from, end := natural(p, before, c.ChangedAt)
	if at.Before(end) {
		if !at.Before(from) {
			return from, end
		}
		return natural(p, before, at)
	}
	start, to := natural(p, zoneOf(c.Zone), at)
	switch {
	case !dateOf(start, c.Zone).After(dateOf(from, before)): // the same date goes on, or one that was there
		for dateOf(start, c.Zone).Before(dateOf(from, before)) { // the zone is far behind: until the date is over there too
			start, to = natural(p, zoneOf(c.Zone), to)
		}
		return from, to
	case start.Before(end):
		return end, to
	}
	return start, to
}

func zoneOf(l *time.Location) *time.Location {
	if l == nil {
		return time.UTC
	}
	return l
}

// dateOf is the date on which a period begins, as a moment that can be compared
// with a date of another zone.
func dateOf(start time.Time, zone *time.Location) time.Time {
	y, m, d := start.In(zoneOf(zone)).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// natural returns the period of a calendar that was always in zone. A day is
// from the first moment of a date to the first of the next: 23, 24 or 25 hours.
func natural(p Period, zone *time.Location, at time.Time) (from, to time.Time) {
	y, m, d := at.In(zone).Date()
	switch p {
	case Week:
		monday := d - (int(at.In(zone).Weekday())+6)%7
		return midnight(y, m, monday, zone), midnight(y, m, monday+7, zone)
	case Month:
		return midnight(y, m, 1, zone), midnight(y, m+1, 1, zone)
	}
	return midnight(y, m, d, zone), midnight(y, m, d+1, zone)
}

// midnight is the first moment of a date in zone. Where the clocks are put
// forward at midnight that is one o'clock; where they are put back to it, the
// first of the two.
func midnight(y int, m time.Month, d int, zone *time.Location) time.Time {
	want := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	begun := func(t time.Time) bool { return !dateOf(t, zone).Before(want) }
	if t := time.Date(y, m, d, 0, 0, 0, 0, zone); begun(t) && !begun(t.Add(-time.Hour)) && !begun(t.Add(-1)) {
		return t
	}
	// Zones are less than 15 hours from UTC and change at full seconds.
	before, after := want.Add(-36*time.Hour).Unix(), want.Add(36*time.Hour).Unix()
	for after-before > 1 {
		if half := before + (after-before)/2; begun(time.Unix(half, 0)) {
			after = half
		} else {
			before = half
		}
	}
	return time.Unix(after, 0).In(zone)
}
