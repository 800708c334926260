//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// pricedModel has a price, which a budget of money needs. The gateway's
// configuration says that its provider is the mock.
const pricedModel = "openai/gpt-4o-mini"

// nameBudgets is the gateway with three budgets of money.
const nameBudgets = nameOurs + " with budgets"

// budgets is json-1k where the company, its project and the key have a budget of
// money each: every call is held at the most it may cost, and settled.
func (b *bench) budgets(ctx context.Context) (res cpuResult, err error) {
	like, err := b.start(nameLike, "")
	if err != nil {
		return res, err
	}
	defer like.proc.stop()
	g, err := startGateway(b.binary, filepath.Join(b.dir, "budgets"), b.mock)
	if err != nil {
		return res, err
	}
	defer g.stop()
	if err := g.giveBudgets(); err != nil {
		return res, err
	}
	ours := &target{name: nameBudgets, addr: g.addr, key: g.demo.APIKey, proc: g.process}
	return b.cpu(ctx, "budgets", b.conns, []*target{like, ours}, []source{priced(like.key), priced(ours.key)})
}

func priced(key string) source {
	return source{[][]byte{wire(key, chatRequestTo(pricedModel, smallBody, false, ""))}, false}
}

// giveBudgets gives the demo company, its project and its live key a budget of
// money, larger than a run can spend, and a credential for the priced model.
func (g *gateway) giveBudgets() error {
	c := g.demo
	if err := g.giveCredentialFor(c, "openai"); err != nil {
		return err
	}
	var keys struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	path := "/v1/organization/projects/" + c.ProjectID + "/api_keys"
	if err := call(g.addr, path, c.AdminKey, nil, &keys); err != nil {
		return err
	}
	if len(keys.Data) == 0 {
		return fmt.Errorf("GET %s: no keys", path)
	}
	scopes := []map[string]string{{"type": "company"}, {"type": "project", "id": c.ProjectID}}
	for _, k := range keys.Data { // the live key and the test key
		scopes = append(scopes, map[string]string{"type": "key", "id": k.ID})
	}
	for _, scope := range scopes {
		budget := map[string]any{"scope": scope, "window": "month", "limit_usd": "1000000"}
		if err := call(g.addr, "/v1/organization/budgets", c.AdminKey, budget, nil); err != nil {
			return err
		}
	}
	return nil
}
