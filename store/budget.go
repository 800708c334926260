package store

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/tenant"
)

const budgetColumns = `id, kind, owner, unit, period, amount, soft, created_at`

var (
	budgetsLoaded = statement{"budgets_loaded",
		`SELECT ` + budgetColumns + ` FROM budget WHERE company_id = $1 ORDER BY created_at, id`}
	budgetOne = statement{"budget_one",
		`SELECT ` + budgetColumns + ` FROM budget WHERE company_id = $1 AND kind = $2 AND owner = $3 AND unit = $4 AND period = $5`}
	budgetInserted = statement{"budget_inserted",
		`INSERT INTO budget (company_id, ` + budgetColumns + `)
		SELECT company_id, $2, $3, $4, $5, $6, $7, $8, $9 FROM company WHERE company_id = $1`}
	budgetUpdated = statement{"budget_updated",
		`UPDATE budget SET amount = $6, soft = $7 WHERE company_id = $1 AND kind = $2 AND owner = $3 AND unit = $4 AND period = $5`}
	budgetsOfOwner = statement{"budgets_of_owner",
		`SELECT count(*) FROM budget WHERE company_id = $1 AND kind = $2 AND owner = $3`}
	budgetDeleted = statement{"budget_deleted",
		`DELETE FROM budget WHERE company_id = $1 AND id = $2 AND (kind = 'ceiling') = $3`}
	calendarLoaded = statement{"calendar_loaded",
		`SELECT zone, zone_before, zone_changed_at FROM company WHERE company_id = $1`}
	calendarSet = statement{"calendar_set",
		`UPDATE company SET zone = $2, zone_before = $3, zone_changed_at = $4 WHERE company_id = $1`}
)

func budgetFields(b *tenant.Budget) []any {
	return []any{&b.ID, &b.Kind, &b.Of, &b.Unit, &b.Period, &b.Limit, &b.Soft, moment{&b.CreatedAt}}
}

// budgets loads the budgets of the company with the calendar they count by. The
// operator's count by the operator's.
func (t *tx) budgets() (calendar *tenant.Calendar, all []*tenant.Budget, err error) {
	calendar = &tenant.Calendar{}
	var zone, before string
	var changed time.Time
	if err := t.one(calendarLoaded, []any{&zone, &before, moment{&changed}}); err != nil {
		return nil, nil, err
	}
	if changed.Unix() > 0 {
		calendar.ChangedAt = changed
	}
	if calendar.Zone, err = zoneNamed(zone); err == nil {
		calendar.Before, err = zoneNamed(before)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the company's time zone: %w", err)
	}
	ceilings := false
	err = t.query(budgetsLoaded, func(r row) error {
		b := &tenant.Budget{Calendar: calendar}
		err := r.Scan(budgetFields(b)...)
		ceilings = ceilings || b.Kind == tenant.OfCeiling
		all = append(all, b)
		return err
	})
	if err != nil || !ceilings {
		return calendar, all, err
	}
	operators, _, err := t.ceilingCalendar()
	for _, b := range all {
		if b.Kind == tenant.OfCeiling {
			b.Calendar = operators
		}
	}
	return calendar, all, err
}

// Budgets implements web.Registry: all budgets as they now are, the operator's
// ceilings included.
func (db *DB) Budgets(ctx context.Context, s tenant.Scope) (calendar *tenant.Calendar, all []*tenant.Budget, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		calendar, all, err = t.budgets()
		return err
	})
	return calendar, all, err
}

// PutBudget implements web.Registry.
func (db *DB) PutBudget(ctx context.Context, s tenant.Scope, b tenant.Budget) (put tenant.Budget, created bool, err error) {
	if b.Kind == tenant.OfCeiling {
		panic("BUG: a company's own ceiling")
	}
	err = db.change(ctx, s, func(t *tx) error {
		put, created, err = t.putBudget(b)
		return err
	})
	return put, created, err
}

func (t *tx) putBudget(b tenant.Budget) (put tenant.Budget, created bool, err error) {
	key := []any{b.Kind, storable(b.Of), string(b.Unit), string(b.Period)}
	n, err := t.exec(budgetUpdated, append(key, b.Limit, b.Soft)...)
	if err != nil {
		return put, false, err
	}
	what := audit.BudgetUpdated
	if created = n == 0; created {
		what = audit.BudgetCreated
		var there int64
		if err := t.one(budgetsOfOwner, []any{&there}, key[:2]...); err != nil {
			return put, false, err
		}
		if there >= tenant.MaxBudgetsPerOwner {
			return put, false, fault.Field("scope", "there are %d budgets of this owner already, which is as many as there may be", there)
		}
		if _, err := t.exec(budgetInserted, b.ID, b.Kind, storable(b.Of), string(b.Unit), string(b.Period), b.Limit, b.Soft, micros(b.CreatedAt)); err != nil {
			return put, false, conflict(err)
		}
		_, all, err := t.budgets()
		if err == nil {
			err = tenant.CheckBudgets(all)
		}
		if err != nil {
			return put, false, err
		}
	}
	if err := t.one(budgetOne, budgetFields(&put), key...); err != nil {
		return put, false, err
	}
	project := ""
	if b.Kind == tenant.OfProject {
		project = b.Of
	}
	return put, created, t.audit(what, project, put.ID, budgeted(&put, created))
}

// budgeted is what the audit log says of a budget.
func budgeted(b *tenant.Budget, created bool) any {
	type budget struct {
		Scope  string        `json:"scope"`
		Of     string        `json:"of,omitempty"`
		Unit   tenant.Unit   `json:"unit"`
		Window tenant.Period `json:"window"`
		Limit  string        `json:"limit"` // in USD, calls or tokens
		Soft   bool          `json:"soft"`
	}
	said := budget{b.Kind, b.Of, b.Unit, b.Period, strconv.FormatInt(b.Limit, 10), b.Soft}
	if b.Unit == tenant.USD {
		said.Limit = ledger.FormatUSD(b.Limit)
	}
	if created {
		return made[budget]{said}
	}
	return changed[budget]{said}
}

// DeleteBudget implements web.Registry.
func (db *DB) DeleteBudget(ctx context.Context, s tenant.Scope, id string) error {
	return db.change(ctx, s, func(t *tx) error { return t.deleteBudget(id, false) })
}

func (t *tx) deleteBudget(id string, ceiling bool) error {
	_, all, err := t.budgets()
	if err != nil {
		return err
	}
	project := ""
	for _, b := range all {
		if b.ID == id && b.Kind == tenant.OfProject {
			project = b.Of
		}
	}
	if err := must(t.exec(budgetDeleted, id, ceiling)); err != nil {
		return err
	}
	return t.audit(audit.BudgetDeleted, project, id)
}

// SetCalendar implements web.Registry: the zone of the company's budgets.
func (db *DB) SetCalendar(ctx context.Context, s tenant.Scope, c *tenant.Calendar) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(calendarSet, zoneName(c.Zone), zoneName(c.Before), micros(c.ChangedAt))); err != nil {
			return err
		}
		return t.audit(audit.ZoneUpdated, "", t.company)
	})
}

// zoneName is a zone as it is stored: "" is UTC.
func zoneName(z *time.Location) string {
	if z == nil || z == time.UTC {
		return ""
	}
	return z.String()
}

// zoneNamed is the way back. A zone that this machine does not know must not become
// another one.
func zoneNamed(name string) (*time.Location, error) {
	if name == "" {
		return nil, nil
	}
	return time.LoadLocation(name)
}
