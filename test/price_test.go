package test

import (
	"net/http"
	"strings"
	"testing"

	"bulkhead/test/upstream"
)

// usdOf is a price per million tokens.
func usdOf(model, input, output string) map[string]any {
	return map[string]any{"provider": "up", "model": model, "usd_per_million_tokens": map[string]string{"input": input, "output": output}}
}

// TestPrices: a model without a list price is refused under a budget, and usable
// with a price of the operator's or the company's own, which comes first. At every
// gateway within seconds.
func TestPrices(t *testing.T) {
	f := newFleet(t, nil, fleetOptions{})
	a, b := f.members[0], f.members[1]
	for _, m := range []*member{a, b} {
		f.all[0].setBudget(t, m.company, 1e12, "month")
	}
	// cost is what a call costs at a gateway: 10 tokens in, 4 out; "" is a refusal.
	cost := func(i int, m *member) string {
		t.Helper()
		got := f.all[i].chat(t, m.APIKey, "up/ok")
		if code, _ := got.fault(); got.status == http.StatusBadRequest && code == "model_price_unknown" {
			return ""
		}
		return got.want(t, "a call", http.StatusOK).header.Get("X-Bulkhead-Cost-Usd")
	}
	everywhereIs := func(m *member, want string) {
		t.Helper()
		for i := range f.all {
			eventually(t, everywhere, "gateway "+string(rune('0'+i))+" takes "+m.Name+"'s price "+want, func() bool { return cost(i, m) == want })
		}
	}
	own := f.all[0].URL + "/v1/organization/prices"
	all := f.all[0].OpsURL + "/admin/prices"
	everywhereIs(a, "")
	everywhereIs(b, "")
	f.all[0].call(t, http.MethodPut, all, f.all[0].Operator, usdOf("ok", "2", "10"), nil)
	everywhereIs(a, "0.00006")
	everywhereIs(b, "0.00006")
	f.all[0].call(t, http.MethodPost, own, a.AdminKey, usdOf("ok", "3", "100"), nil)
	everywhereIs(a, "0.00043")
	everywhereIs(b, "0.00006")
	f.all[0].call(t, http.MethodPut, all, f.all[0].Operator, usdOf("ok", "1", "1"), nil)
	everywhereIs(b, "0.000014")
	everywhereIs(a, "0.00043")
	f.all[0].call(t, http.MethodDelete, own+"/up/ok", a.AdminKey, nil, nil)
	everywhereIs(a, "0.000014")
	f.all[0].call(t, http.MethodDelete, all+"/up/ok", f.all[0].Operator, nil, nil)
	everywhereIs(a, "")
	everywhereIs(b, "")
	// A gateway that starts has them from the beginning.
	f.all[0].call(t, http.MethodPut, all, f.all[0].Operator, usdOf("ok", "2", "10"), nil)
	f.runs[2].stop(t)
	f.start(t, 2)
	if got := cost(2, b); got != "0.00006" {
		t.Errorf("a gateway that has just started takes the price %q", got)
	}
}

// TestPriceShapes: what is answered, and what is refused by name.
func TestPriceShapes(t *testing.T) {
	up := upstream.New(t)
	g := startGateway(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	own, all := g.URL+"/v1/organization/prices", g.OpsURL+"/admin/prices"
	var row struct {
		ID, Object, Provider, Model string
		Updated                     int64             `json:"updated_at"`
		Million                     map[string]string `json:"usd_per_million_tokens"`
		Per                         map[string]string `json:"usd_per"`
		Tier                        map[string]any    `json:"service_tier"`
		Above                       []any             `json:"above_input_tokens"`
	}
	whole := usdOf("org/some-model", "2.50", "10")
	whole["usd_per_million_tokens"] = map[string]string{"input": "2.50", "cached_input": "0.25", "cache_write": "1", "cache_write_1h": "2", "audio_input": "3",
		"image_input": "4", "output": "10", "reasoning": "11", "audio_output": "12", "image_output": "13"}
	whole["usd_per"] = map[string]string{"call": "0.01", "search": "0.0000001"}
	whole["service_tier"] = map[string]any{"flex": map[string]string{"input": "1", "output": "5"}}
	whole["above_input_tokens"] = []any{map[string]any{"tokens": 200000, "usd_per_million_tokens": map[string]string{"input": "5", "output": "20"}}}
	whole["max_output_tokens"] = 4096
	g.call(t, http.MethodPost, own, g.Demo.AdminKey, whole, &row)
	if row.ID != "up/org/some-model" || row.Object != "organization.price" || row.Updated == 0 || row.Million["input"] != "2.50" || len(row.Million) != 10 ||
		row.Per["search"] != "0.0000001" || row.Tier["flex"] == nil || len(row.Above) != 1 {
		t.Errorf("answered %+v", row)
	}
	row.Million = nil
	g.call(t, http.MethodGet, own+"/up/org/some-model", g.Demo.AdminKey, nil, &row)
	if row.ID != "up/org/some-model" || row.Million["cache_write_1h"] != "2" {
		t.Errorf("answered %+v", row)
	}
	for _, at := range []struct{ method, url, key string }{{http.MethodPost, own, g.Demo.AdminKey}, {http.MethodPut, all, g.Operator}} {
		refused := func(param string, body any) {
			t.Helper()
			got := ask(t, at.method, at.url, at.key, body).want(t, param, http.StatusBadRequest)
			if !strings.Contains(string(got.body), `"param":"`+param+`"`) {
				t.Errorf("want %s, got %s", param, got.body)
			}
		}
		with := func(name string, v any) map[string]any {
			body := usdOf("m", "1", "1")
			body[name] = v
			return body
		}
		refused("provider", with("provider", "nobody"))
		refused("provider", with("provider", ""))
		refused("model", with("model", "a b"))
		refused("usd_per_million_tokens.input", usdOf("m", "-1", "1"))
		refused("usd_per_million_tokens.input", usdOf("m", "1e3", "1"))
		refused("usd_per_million_tokens.output", usdOf("m", "1", "0.0000001"))
		refused("usd_per_million_tokens.input", with("usd_per_million_tokens", map[string]any{"input": 1.5}))
		refused("usd_per_million_tokens.inputs", with("usd_per_million_tokens", map[string]any{"inputs": "1"}))
		refused("service_tier.flex.output", with("service_tier", map[string]any{"flex": map[string]string{"output": "x"}}))
		refused("above_input_tokens[0].tokens", with("above_input_tokens", []any{map[string]any{"tokens": -1}}))
		refused("company_id", with("company_id", "org-1"))
		refused("usd_per_million_tokens", map[string]any{"provider": "up", "model": "m"})
	}
	var list struct {
		Data []struct{ ID string }
	}
	g.call(t, http.MethodGet, own, g.Demo.AdminKey, nil, &list)
	if len(list.Data) != 1 || list.Data[0].ID != "up/org/some-model" {
		t.Errorf("listed %+v", list)
	}
	// The operator's may be for a catalogue, too; a company's are for providers.
	g.call(t, http.MethodPut, all, g.Operator, map[string]any{"provider": "bedrock", "model": "m", "usd_per": map[string]string{"call": "1"}}, nil)
	g.call(t, http.MethodGet, all, g.Operator, nil, &list)
	if len(list.Data) != 1 || list.Data[0].ID != "bedrock/m" {
		t.Errorf("listed %+v", list)
	}
	ask(t, http.MethodDelete, all+"/up/never", g.Operator, nil).want(t, "a price that is not there", http.StatusNotFound)
	ask(t, http.MethodGet, all, g.Demo.AdminKey, nil).want(t, "a company's key", http.StatusForbidden)
}
