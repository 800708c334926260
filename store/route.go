package store

import (
	"context"

	"bulkhead/audit"
	"bulkhead/tenant"
)

var (
	routesLoaded = statement{"routes_loaded",
		`SELECT name, targets, created_at FROM route WHERE company_id = $1`}
	routeInserted = statement{"route_inserted",
		`INSERT INTO route (company_id, name, targets, created_at) VALUES ($1, $2, $3, $4)`}
	routeUpdated = statement{"route_updated",
		`UPDATE route SET targets = $3 WHERE company_id = $1 AND name = $2`}
	routeDeleted = statement{"route_deleted",
		`DELETE FROM route WHERE company_id = $1 AND name = $2`}
)

// PutRoute implements web.Registry. A route that is replaced keeps the time it
// was created.
func (db *DB) PutRoute(ctx context.Context, s tenant.Scope, r tenant.Route) (created bool, err error) {
	if err := checkName("name", r.Name); err != nil {
		return false, err
	}
	err = db.change(ctx, s, func(t *tx) error {
		targets := asJSON(r.Targets)
		n, err := t.exec(routeUpdated, r.Name, targets)
		if err != nil {
			return err
		}
		if created = n == 0; !created {
			return t.audit(audit.RouteUpdated, "", r.Name, routed(r))
		}
		if _, err := t.exec(routeInserted, r.Name, targets, micros(r.CreatedAt)); err != nil {
			return conflict(err)
		}
		return t.audit(audit.RouteCreated, "", r.Name, routed(r))
	})
	return created && err == nil, err
}

// DeleteRoute implements web.Registry.
func (db *DB) DeleteRoute(ctx context.Context, s tenant.Scope, name string) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(routeDeleted, name)); err != nil {
			return err
		}
		return t.audit(audit.RouteDeleted, "", name)
	})
}
