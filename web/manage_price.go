package web

import (
	"bytes"
	"encoding/json"
	"strings"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/tenant"
)

// priceObject is an override of a list price.
type priceObject struct {
	object string
	p      tenant.Price
}

// MarshalJSON writes what Spec has with the object's own fields before it.
func (o priceObject) MarshalJSON() ([]byte, error) {
	head, err := json.Marshal(struct {
		ID        string `json:"id"`
		Object    string `json:"object"`
		UpdatedAt int64  `json:"updated_at"`
	}{o.p.ID(), o.object, o.p.UpdatedAt.Unix()})
	if err != nil {
		return nil, err
	}
	return append(append(bytes.TrimSuffix(head, []byte("}")), ','), strings.TrimPrefix(o.p.Spec, "{")...), nil
}

const (
	companyPrice  = "organization.price"
	operatorPrice = "price"
)

func (g *Gateway) listedPrices(r *request, object string, all []tenant.Price) (any, error) {
	page, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	objects := make([]priceObject, len(all))
	for i := range all {
		objects[i] = priceObject{object, all[i]}
	}
	id := func(o priceObject) string { return o.p.ID() }
	rows, more, err := cut(objects, page, id)
	return listed(page, rows, more, err, func(o priceObject) priceObject { return o }, id)
}

// parsePrice reads and checks an override. known says which providers there are.
func (g *Gateway) parsePrice(r *request, known func(provider string) bool, there []tenant.Price) (p tenant.Price, err error) {
	body, err := readSmall(r.rc)
	if err != nil {
		return p, err
	}
	row, err := ledger.ParsePriceRow(body)
	if err != nil {
		return p, err
	}
	if _, err := row.Override(""); err != nil {
		return p, err
	}
	if !known(row.Provider) {
		return p, fault.Field("provider", "The gateway has no provider of this name.")
	}
	spec, err := json.Marshal(row)
	if err != nil {
		return p, err
	}
	p = tenant.Price{Provider: row.Provider, Model: row.Model, Spec: string(spec), UpdatedAt: g.now()}
	if findPrice(there, p.ID()) == nil && len(there) >= ledger.MaxPriceRows {
		return p, fault.Field("model", "There are %d prices already, which is as many as there may be.", len(there))
	}
	return p, nil
}

func findPrice(all []tenant.Price, id string) *tenant.Price {
	for i := range all {
		if all[i].ID() == id {
			return &all[i]
		}
	}
	return nil
}

func (g *Gateway) listPrices(r *request) (any, error) {
	return g.listedPrices(r, companyPrice, r.scope.Company().Prices)
}

func (g *Gateway) getPrice(r *request) (any, error) {
	p := findPrice(r.scope.Company().Prices, r.param("price"))
	if p == nil {
		return nil, tenant.ErrNotFound
	}
	return priceObject{companyPrice, *p}, nil
}

// putPrice stores a price in place of the one of its provider and model.
func (g *Gateway) putPrice(r *request) (any, error) {
	p, err := g.parsePrice(r, func(name string) bool { return r.settings.Vendors[name] != nil }, r.scope.Company().Prices)
	if err != nil {
		return nil, err
	}
	return priceObject{companyPrice, p}, g.Registry.PutPrice(r.ctx, r.scope, p)
}

func (g *Gateway) deletePrice(r *request) (any, error) {
	id := r.param("price")
	provider, model, _ := strings.Cut(id, "/")
	return deleted{id, companyPrice + ".deleted", true}, g.Registry.DeletePrice(r.ctx, r.scope, provider, model)
}

func (g *Gateway) listOperatorPrices(r *request) (any, error) {
	if _, err := r.operator.Begin(r.ctx, "price.list", ""); err != nil {
		return nil, err
	}
	all, err := g.Registry.OperatorPrices(r.ctx)
	if err != nil {
		return nil, err
	}
	return g.listedPrices(r, operatorPrice, all)
}

// putOperatorPrice stores a price that holds for all companies, by the name of the
// provider or of its catalogue.
func (g *Gateway) putOperatorPrice(r *request) (any, error) {
	act, err := r.operator.Begin(r.ctx, "price.put", "")
	if err != nil {
		return nil, err
	}
	all, err := g.Registry.OperatorPrices(r.ctx)
	if err != nil {
		return nil, err
	}
	known := func(name string) bool { return r.settings.Vendors[name] != nil || len(g.Prices.Models(name)) > 0 }
	p, err := g.parsePrice(r, known, all)
	if err != nil {
		return nil, err
	}
	if err := g.Registry.PutOperatorPrice(r.ctx, act, p); err != nil {
		return nil, err
	}
	return priceObject{operatorPrice, p}, g.LoadPrices(r.ctx)
}

func (g *Gateway) deleteOperatorPrice(r *request) (any, error) {
	act, err := r.operator.Begin(r.ctx, "price.delete", "")
	if err != nil {
		return nil, err
	}
	id := r.param("override")
	provider, model, _ := strings.Cut(id, "/")
	if err := g.Registry.DeleteOperatorPrice(r.ctx, act, provider, model); err != nil {
		return nil, err
	}
	return deleted{id, operatorPrice + ".deleted", true}, g.LoadPrices(r.ctx)
}
