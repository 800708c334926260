package store

import (
	"context"
	"encoding/json"

	"bulkhead/audit"
	"bulkhead/tenant"
)

var (
	pricesLoaded = statement{"prices_loaded",
		`SELECT provider, model, spec, updated_at FROM price WHERE company_id = $1 ORDER BY provider, model`}
	priceInserted = statement{"price_inserted",
		`INSERT INTO price (company_id, provider, model, spec, updated_at) VALUES ($1, $2, $3, $4, $5)`}
	priceUpdated = statement{"price_updated",
		`UPDATE price SET spec = $4, updated_at = $5 WHERE company_id = $1 AND provider = $2 AND model = $3`}
	priceDeleted = statement{"price_deleted",
		`DELETE FROM price WHERE company_id = $1 AND provider = $2 AND model = $3`}

	operatorPricesAll = globalStatement{"operator_prices_all",
		`SELECT provider, model, spec, updated_at FROM operator_price ORDER BY provider, model`}
	operatorPricePut = globalStatement{"operator_price_put",
		`INSERT INTO operator_price (provider, model, spec, updated_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (provider, model) DO UPDATE SET spec = excluded.spec, updated_at = excluded.updated_at`}
	operatorPriceDeleted = globalStatement{"operator_price_deleted",
		`DELETE FROM operator_price WHERE provider = $1 AND model = $2`}
)

func (t *tx) prices(st anyStatement) (all []tenant.Price, err error) {
	err = t.query(st, func(r row) error {
		var p tenant.Price
		err := r.Scan(&p.Provider, &p.Model, &p.Spec, moment{&p.UpdatedAt})
		all = append(all, p)
		return err
	})
	return all, err
}

// PutPrice implements web.Registry.
func (db *DB) PutPrice(ctx context.Context, s tenant.Scope, p tenant.Price) error {
	return db.change(ctx, s, func(t *tx) error {
		said := json.RawMessage(p.Spec)
		args := []any{storable(p.Provider), storable(p.Model), p.Spec, micros(p.UpdatedAt)}
		n, err := t.exec(priceUpdated, args...)
		if err != nil {
			return err
		}
		if n > 0 {
			return t.audit(audit.PriceUpdated, "", p.ID(), changed[json.RawMessage]{said})
		}
		if _, err := t.exec(priceInserted, args...); err != nil {
			return conflict(err)
		}
		return t.audit(audit.PriceCreated, "", p.ID(), made[json.RawMessage]{said})
	})
}

// DeletePrice implements web.Registry.
func (db *DB) DeletePrice(ctx context.Context, s tenant.Scope, provider, model string) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(priceDeleted, storable(provider), storable(model))); err != nil {
			return err
		}
		return t.audit(audit.PriceDeleted, "", provider+"/"+model)
	})
}

// OperatorPrices implements web.Registry.
func (db *DB) OperatorPrices(ctx context.Context) (all []tenant.Price, err error) {
	err = db.global(ctx, reading, func(t *tx) error {
		all, err = t.prices(operatorPricesAll)
		return err
	})
	return all, err
}

// PutOperatorPrice implements web.Registry. The act was recorded.
func (db *DB) PutOperatorPrice(ctx context.Context, _ tenant.Act, p tenant.Price) error {
	return db.operatorPrice(ctx, func(t *tx) error {
		_, err := t.exec(operatorPricePut, p.Provider, p.Model, p.Spec, micros(p.UpdatedAt))
		return err
	})
}

// DeleteOperatorPrice implements web.Registry.
func (db *DB) DeleteOperatorPrice(ctx context.Context, _ tenant.Act, provider, model string) error {
	return db.operatorPrice(ctx, func(t *tx) error {
		return must(t.exec(operatorPriceDeleted, storable(provider), storable(model)))
	})
}

// operatorPrice changes the operator's prices, and tells every gateway.
func (db *DB) operatorPrice(ctx context.Context, change func(*tx) error) error {
	return db.global(ctx, writing, func(t *tx) error {
		if err := change(t); err != nil {
			return err
		}
		var generation int64
		if err := t.one(changeCounted, []any{&generation}); err != nil {
			return err
		}
		_, err := t.exec(changePut, tenant.OperatorPrices, generation)
		return err
	})
}
