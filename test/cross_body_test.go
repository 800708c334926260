package test

import (
	"bulkhead/web"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// media is a form for the shared model with a file in a field, and another field.
func media(of string, field ...string) form {
	f := form{fields: map[string]string{"model": "shared"}, name: "media.bin", text: "media", of: of}
	if len(field) > 0 {
		f.fields[field[0]] = field[1]
	}
	return f
}

// What a budget, a limit and an alert are made with that nothing here reaches.
func userBudget(name string) any {
	return map[string]any{"scope": map[string]any{"type": "user", "id": name}, "window": "day", "limit_requests": 1_000_000}
}

func spendLimit(*side) any {
	return map[string]any{"threshold_amount": 90_000_000, "currency": "USD", "interval": "month"}
}

func spendAlert(*side) any {
	return map[string]any{"threshold_amount": 90_000_000, "currency": "USD", "interval": "month",
		"notification_channel": map[string]any{"type": "webhook", "url": "https://hooks.example.com/spend"}}
}

// priceOf is a price of a model that nothing here calls.
func priceOf(provider, model string) any {
	return map[string]any{"provider": provider, "model": model, "usd_per_million_tokens": map[string]string{"input": "1.5", "output": "6"}}
}

var ceiling = map[string]any{"window": "month", "limit_usd": "900000"}

// query is what a route must be asked with.
func query(r web.Route) string {
	if r.Method != http.MethodGet {
		return ""
	}
	switch p := r.Pattern; {
	case strings.HasPrefix(p, "/v1/organization/usage/"), strings.HasSuffix(p, "/costs"):
		return usageSpan + "&limit=30"
	case strings.HasSuffix(p, "/ledger/export"):
		return usageSpan
	}
	return ""
}

// usageSpan is from yesterday to tomorrow.
var usageSpan = fmt.Sprintf("?start_time=%d&end_time=%d", time.Now().Unix()-86400, time.Now().Unix()+86400)

// absent reports whether a route shows what no company here has: a limit that is
// set in a sweep is taken away in it.
func absent(r web.Route) bool {
	return r.Method == http.MethodGet && strings.HasSuffix(r.Pattern, "/spend_limit") || r.Pattern == "/v1/organization/api_keys/revoke"
}

func named(*side) any { return map[string]any{"name": "Same name"} }
func empty(*side) any { return map[string]any{} }
