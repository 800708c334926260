package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
)

var installationReplaced = globalStatement{"installation_replaced", `UPDATE installation SET value = $3 WHERE name = $1 AND value = $2`}

// PutCeiling implements web.Registry. The ceiling is the operator's act, in the
// company's log.
func (db *DB) PutCeiling(ctx context.Context, a tenant.Act, s tenant.Scope, b tenant.Budget) (put tenant.Budget, err error) {
	b.Kind, b.Of = tenant.OfCeiling, ""
	err = db.changeFor(ctx, a, s, func(t *tx) error {
		if put, _, err = t.putBudget(b); err != nil {
			return err
		}
		put.Calendar, _, err = t.ceilingCalendar()
		return err
	})
	return put, err
}

// DeleteCeiling implements web.Registry.
func (db *DB) DeleteCeiling(ctx context.Context, a tenant.Act, s tenant.Scope, id string) error {
	return db.changeFor(ctx, a, s, func(t *tx) error { return t.deleteBudget(id, true) })
}

// ceilingZone is the fact by which calendar all ceilings count: its zone, the one
// before, and when that changed in microseconds, with commas between. Where there
// is none they count in UTC, as they always did.
const ceilingZone = "ceiling_zone"

func calendarText(c *tenant.Calendar) string {
	return zoneName(c.Zone) + "," + zoneName(c.Before) + "," + strconv.FormatInt(micros(c.ChangedAt), 10)
}

func parseCalendar(text string) (c *tenant.Calendar, err error) {
	c = &tenant.Calendar{}
	zone, rest, _ := strings.Cut(text, ",")
	before, at, _ := strings.Cut(rest, ",")
	changed, err := strconv.ParseInt(at, 10, 64)
	if err == nil {
		c.Zone, err = zoneNamed(zone)
	}
	if err == nil {
		c.Before, err = zoneNamed(before)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the time zone of ceilings: %w", err)
	}
	if changed > 0 {
		c.ChangedAt = time.UnixMicro(changed).UTC()
	}
	return c, nil
}

// ceilingCalendar returns by what the operator's ceilings count, and whether that
// was ever set.
func (t *tx) ceilingCalendar() (c *tenant.Calendar, set bool, err error) {
	var text string
	switch err := t.one(installationOne, []any{&text}, ceilingZone); {
	case errors.Is(err, errNoRow):
		return &tenant.Calendar{}, false, nil
	case err != nil:
		return nil, false, err
	}
	c, err = parseCalendar(text)
	return c, true, err
}

// CeilingCalendar returns by what the operator's ceilings count; set is false if
// that was never said, and is UTC.
func (db *DB) CeilingCalendar(ctx context.Context) (c *tenant.Calendar, set bool, err error) {
	err = db.global(ctx, reading, func(t *tx) error {
		c, set, err = t.ceilingCalendar()
		return err
	})
	return c, set, err
}

// SetCeilingCalendar changes by what all ceilings count, and tells every gateway. A
// *fault.Error of kind Conflict says that it is not what it was any more.
func (db *DB) SetCeilingCalendar(ctx context.Context, a tenant.Act, was, c *tenant.Calendar) error {
	return db.changeForAll(ctx, a, func(t *tx) error {
		n, err := t.exec(installationReplaced, ceilingZone, calendarText(was), calendarText(c))
		if err == nil && n == 0 && calendarText(was) == calendarText(new(tenant.Calendar)) { // it may never have been set
			n, err = t.exec(installationInserted, ceilingZone, calendarText(c))
		}
		if err == nil && n == 0 {
			return fault.New(fault.Conflict, "The time zone of ceilings was changed by another gateway.")
		}
		return err
	})
}
