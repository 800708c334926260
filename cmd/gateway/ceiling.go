package main

import (
	"context"
	"errors"
	"time"

	"bulkhead/config"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/store"
	"bulkhead/tenant"
)

// ceilingZone makes ceilings count by the configured zone. What runs in the zone
// before runs on: see tenant.Calendar. While that is so from an earlier change,
// this one waits until a later start.
func (h *house) ceilingZone(ctx context.Context, cfg *config.Config, d *tenant.Directory) error {
	zone, err := cfg.Budgets.Zone()
	if err != nil {
		return err
	}
	for range 10 {
		was, set, err := h.db.CeilingCalendar(ctx)
		if err != nil || zoneOf(was) == zone.String() {
			return err
		}
		next, ok := was.Change(zone, time.Now())
		if !ok {
			h.log.Warn("ceilings still count by the zone before: periods from before an earlier change run", "zone", zoneOf(was), "configured", zone.String())
			return nil
		}
		act, err := d.Gateway().Begin(ctx, "ceiling.zone", "")
		if err != nil {
			return err
		}
		if !set {
			if next, err = firstCalendar(ctx, h.db, act, next); err != nil {
				return err
			}
		}
		// Gateways that start together all want the same.
		if err := h.db.SetCeilingCalendar(ctx, act, was, next); !fault.Is(err, fault.Conflict) {
			return err
		}
	}
	return errors.New("the time zone of ceilings is being changed by others")
}

// firstCalendar is next, but for an installation without companies: nothing runs
// there that could begin early.
func firstCalendar(ctx context.Context, db *store.DB, act tenant.Act, next *tenant.Calendar) (*tenant.Calendar, error) {
	some, _, err := db.Companies(ctx, act, openai.Page{Limit: 1})
	if err == nil && len(some) == 0 {
		return &tenant.Calendar{Zone: next.Zone}, nil
	}
	return next, err
}

func zoneOf(c *tenant.Calendar) string {
	if c.Zone == nil {
		return time.UTC.String()
	}
	return c.Zone.String()
}
