package web

import (
	"strings"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// calendarObject says in which time zone the company's budgets count.
type calendarObject struct {
	Object   string `json:"object"`
	TimeZone string `json:"time_zone"`
	// ChangedAt is when the zone was last changed, null for never.
	ChangedAt *int64 `json:"changed_at"`
	// Periods are those that run now: a change leaves them as they are.
	Periods map[tenant.Period]periodObject `json:"periods"`
}

type periodObject struct {
	Start int64 `json:"period_start"`
	Reset int64 `json:"reset_at"`
}

func toCalendar(c *tenant.Calendar, now time.Time) calendarObject {
	o := calendarObject{Object: "organization.budget_calendar", TimeZone: time.UTC.String(), ChangedAt: unixTime(c.ChangedAt), Periods: map[tenant.Period]periodObject{}}
	if c.Zone != nil {
		o.TimeZone = c.Zone.String()
	}
	for _, p := range []tenant.Period{tenant.Day, tenant.Week, tenant.Month} {
		from, to := c.Window(p, now)
		o.Periods[p] = periodObject{from.Unix(), to.Unix()}
	}
	return o
}

func (g *Gateway) getCalendar(r *request) (any, error) {
	c, _, err := g.Registry.Budgets(r.ctx, r.scope)
	if err != nil {
		return nil, err
	}
	return toCalendar(c, g.now()), nil
}

// setCalendar changes the time zone of the company's budgets. What is the zone
// already is left alone.
func (g *Gateway) setCalendar(r *request) (any, error) {
	var b struct {
		TimeZone string `json:"time_zone"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	zone, err := parseZone(b.TimeZone)
	if err != nil {
		return nil, err
	}
	c, _, err := g.Registry.Budgets(r.ctx, r.scope)
	if err != nil {
		return nil, err
	}
	now := g.now()
	if before := toCalendar(c, now); before.TimeZone == zone.String() {
		return before, nil
	}
	changed, ok := c.Change(zone, now)
	if !ok {
		e := fault.New(fault.Conflict, "Periods that began before the last change of the time zone still run. It can be changed again from %s on.",
			changeable(c, now).UTC().Format(time.RFC3339)).WithCode("time_zone_changed_recently")
		e.Param = "time_zone"
		return nil, e
	}
	return toCalendar(changed, now), g.Registry.SetCalendar(r.ctx, r.scope, changed)
}

// changeable returns when the zone can be changed again: as soon as all periods
// are those that the zone would have had.
func changeable(c *tenant.Calendar, now time.Time) time.Time {
	at := now
	for range 4 {
		if _, ok := c.Change(c.Zone, at); ok {
			return at
		}
		var last time.Time
		for _, p := range []tenant.Period{tenant.Day, tenant.Week, tenant.Month} {
			natural := tenant.Calendar{Zone: c.Zone}
			from, to := c.Window(p, at)
			if f, t := natural.Window(p, at); !(f.Equal(from) && t.Equal(to)) && to.After(last) {
				last = to
			}
		}
		at = last
	}
	return at
}

// maxZone bounds the name of a time zone, in bytes; the longest there is has 30.
const maxZone = 64

// parseZone returns the time zone with a name of the IANA time zone database. The
// machine's own zone is not one.
func parseZone(name string) (*time.Location, error) {
	bad := fault.Field("time_zone", "time_zone must be a name of the IANA time zone database, such as Europe/Berlin or UTC.")
	if name == "" || len(name) > maxZone || strings.EqualFold(name, "local") {
		return nil, bad
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, bad
	}
	return zone, nil
}
