package web

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// usageRegistry answers every question with the sums that are in its span, whole
// before until.
type usageRegistry struct {
	Registry
	asked []ledger.UsageQuery
	sums  []ledger.UsageSum
	until time.Time
}

func (u *usageRegistry) Usage(_ context.Context, _ tenant.Scope, q ledger.UsageQuery) (sums []ledger.UsageSum, until time.Time, err error) {
	u.asked = append(u.asked, q)
	if until = q.Until; !u.until.IsZero() && u.until.Before(until) {
		until = u.until
	}
	for _, s := range u.sums {
		if !s.At.Before(q.From) && s.At.Before(until) {
			sums = append(sums, s)
		}
	}
	return sums, until, nil
}

// usageOf asks an address of usage and returns the answer in JSON.
func usageOf(t *testing.T, u *usageRegistry, address manageFunc, query string) (map[string]any, string, error) {
	t.Helper()
	rc := &fasthttp.RequestCtx{}
	rc.Request.SetRequestURI("/?" + query)
	g := &Gateway{Parts: Parts{Registry: u}}
	answer, err := address(g, &request{ctx: t.Context(), rc: rc, scope: tenanttest.Scope(t, "acme")})
	if err != nil {
		return nil, "", err
	}
	b, err := json.Marshal(answer)
	must(t, err)
	var out map[string]any
	must(t, json.Unmarshal(b, &out))
	return out, string(b), nil
}

var noon = time.Date(2026, 11, 22, 12, 34, 56, 0, time.UTC)

func TestUsageParameters(t *testing.T) {
	bad := func(address manageFunc, query, param string) {
		t.Helper()
		_, _, err := usageOf(t, &usageRegistry{}, address, query)
		if f := fault.As(err); err == nil || f.Kind != fault.Invalid || f.Param != param {
			t.Errorf("%s: %v, want an error about %s", query, err, param)
		}
	}
	usage := (*Gateway).getUsageOfCompletions
	const at = "start_time=1795350896"
	bad(usage, "", "start_time")
	bad(usage, "start_time=yesterday", "start_time")
	bad(usage, "start_time=-1", "start_time")
	bad(usage, "start_time=9999999999999", "start_time")
	bad(usage, at+"&end_time=1.5", "end_time")
	bad(usage, at+"&end_time=1000", "end_time")
	bad(usage, at+"&bucket_width=1w", "bucket_width")
	bad((*Gateway).getCosts, at+"&bucket_width=1h", "bucket_width")
	bad(usage, at+"&limit=0", "limit")
	bad(usage, at+"&limit=32", "limit")
	bad(usage, at+"&limit=169&bucket_width=1h", "limit")
	bad(usage, at+"&limit=1441&bucket_width=1m", "limit")
	bad((*Gateway).getCosts, at+"&limit=181", "limit")
	bad(usage, at+"&group_by=color", "group_by")
	bad(usage, at+"&group_by[]=line_item", "group_by")
	bad((*Gateway).getUsageOfEmbeddings, at+"&group_by[]=batch", "group_by")
	bad((*Gateway).getCosts, at+"&group_by[]=model", "group_by")
	bad(usage, at+"&project_ids[]=", "project_ids")
	bad(usage, at+"&models="+strings.Repeat("x", 257), "models")
	bad(usage, at+strings.Repeat("&user_ids[]=x", 101), "user_ids")
	bad(usage, at+"&batch=maybe", "batch")
	bad((*Gateway).getUsageOfEmbeddings, at+"&batch=true", "batch")
	for _, page := range []string{"x", "page_", "page_AAAA", "page_!!!!", usagePageName(noon, noon), usagePageName(time.Unix(0, 0), noon.Truncate(24*time.Hour)),
		usagePageName(noon.Truncate(24*time.Hour).Add(24*time.Hour), noon.Truncate(24*time.Hour))} {
		bad(usage, at+"&page="+page, "page")
	}
}

func TestUsagePages(t *testing.T) {
	day := noon.Truncate(24 * time.Hour)
	u := &usageRegistry{}
	for i := range 10 {
		u.sums = append(u.sums, ledger.UsageSum{At: day.Add(time.Duration(i) * 24 * time.Hour), Attempts: int64(i + 1), Input: 10})
	}
	// Buckets are whole, and pages go on until the end that was asked for.
	query := "start_time=1795350896&end_time=1795350897&limit=4&bucket_width=1d"
	query = strings.Replace(query, "end_time=1795350897", "end_time="+intText(day.Add(9*24*time.Hour+time.Second).Unix()), 1)
	var starts []float64
	var requests float64
	page := ""
	for n := 1; ; n++ {
		out, text, err := usageOf(t, u, (*Gateway).getUsageOfModerations, query+page)
		must(t, err)
		if out["object"] != "page" {
			t.Fatal(text)
		}
		for _, b := range out["data"].([]any) {
			b := b.(map[string]any)
			starts = append(starts, b["start_time"].(float64))
			if b["end_time"].(float64)-b["start_time"].(float64) != 86400 || b["object"] != "bucket" {
				t.Errorf("%v", b)
			}
			for _, r := range b["results"].([]any) {
				requests += r.(map[string]any)["num_model_requests"].(float64)
			}
		}
		if out["has_more"] == false {
			if out["next_page"] != nil || n != 3 {
				t.Errorf("page %d: %s", n, text)
			}
			break
		}
		page = "&page=" + out["next_page"].(string)
	}
	if len(starts) != 10 || int64(starts[0]) != day.Unix() || int64(starts[9]) != day.Unix()+9*86400 || requests != 55 {
		t.Errorf("buckets %v, %v requests", starts, requests)
	}
	if q := u.asked[0]; !q.From.Equal(day) || !q.Until.Equal(day.Add(4*24*time.Hour)) || strings.Join(q.Kinds, " ") != "moderations" {
		t.Errorf("asked %+v", q)
	}
	// Where there are too many sums for a page it ends earlier, and the next goes on there.
	u.until = day.Add(2 * 24 * time.Hour)
	out, text, err := usageOf(t, u, (*Gateway).getUsageOfModerations, query)
	must(t, err)
	if len(out["data"].([]any)) != 2 || out["has_more"] != true {
		t.Error(text)
	}
	from, end, ok := parseUsagePage(out["next_page"].(string))
	if !ok || !from.Equal(u.until) || !end.Equal(day.Add(10*24*time.Hour)) {
		t.Errorf("the next page is from %s to %s", from, end)
	}
	u.until = day
	if _, _, err := usageOf(t, u, (*Gateway).getUsageOfModerations, query); fault.As(err).Param != "group_by" {
		t.Errorf("one bucket with too many: %v", err)
	}
}

func intText(n int64) string { b, _ := json.Marshal(n); return string(b) }

func TestUsageResults(t *testing.T) {
	at := noon.Truncate(24 * time.Hour)
	u := &usageRegistry{sums: []ledger.UsageSum{
		{At: at, Provider: "openai", Model: "gpt-4o", Tier: "batch", Requests: 1, Attempts: 2, CostNano: 1, Input: 100, CachedInput: 40, CacheWrite: 10, AudioInput: 5,
			ImageInput: 7, Output: 50, AudioOutput: 3, ImageOutput: 4},
		{At: at, Provider: "openai", Model: "gpt-4o", Tier: "flex", Attempts: 1, CostNano: 9_007_199_254_740_993, Input: 1},
		{At: at, Provider: "openai", Model: "gpt-4o", Tier: "", Attempts: 4, CostNano: 2, Input: 2},
	}}
	span := "start_time=" + intText(at.Unix()) + "&end_time=" + intText(at.Unix()+1)
	f := func(address manageFunc, query string, want ...string) {
		t.Helper()
		_, text, err := usageOf(t, u, address, span+query)
		must(t, err)
		_, results, _ := strings.Cut(text, `"results":`)
		results, _, _ = strings.Cut(results, `}],"has_more"`)
		if results != "["+strings.Join(want, ",")+"]" {
			t.Errorf("%s:\ngot  %s\nwant [%s]", query, results, strings.Join(want, ","))
		}
	}
	// Tiers are one where only batch or not is asked for.
	f((*Gateway).getUsageOfCompletions, "&group_by[]=batch&group_by[]=model",
		`{"object":"organization.usage.completions.result","input_tokens":100,"input_cached_tokens":40,"input_cache_write_tokens":10,"input_uncached_tokens":50,`+
			`"output_tokens":50,"input_text_tokens":38,"output_text_tokens":43,"input_audio_tokens":5,"output_audio_tokens":3,"input_image_tokens":7,"output_image_tokens":4,`+
			`"num_model_requests":2,"project_id":null,"user_id":null,"api_key_id":null,"model":"openai/gpt-4o","batch":true,"service_tier":null,"api_source":null}`,
		`{"object":"organization.usage.completions.result","input_tokens":3,"input_cached_tokens":0,"input_cache_write_tokens":0,"input_uncached_tokens":3,`+
			`"output_tokens":0,"input_text_tokens":3,"output_text_tokens":0,"input_audio_tokens":0,"output_audio_tokens":0,"input_image_tokens":0,"output_image_tokens":0,`+
			`"num_model_requests":5,"project_id":null,"user_id":null,"api_key_id":null,"model":"openai/gpt-4o","batch":false,"service_tier":null,"api_source":null}`)
	// Every digit of a sum that no float64 has.
	f((*Gateway).getCosts, "&group_by=line_item",
		`{"object":"organization.costs.result","amount":{"value":0.000000001,"currency":"usd"},"line_item":"openai/gpt-4o, batch","project_id":null,"api_key_id":null,`+
			`"user_id":null,"quantity":150,"quantity_unit":"tokens","api_source":null}`,
		`{"object":"organization.costs.result","amount":{"value":9007199.254740993,"currency":"usd"},"line_item":"openai/gpt-4o, flex","project_id":null,"api_key_id":null,`+
			`"user_id":null,"quantity":1,"quantity_unit":"tokens","api_source":null}`,
		`{"object":"organization.costs.result","amount":{"value":0.000000002,"currency":"usd"},"line_item":"openai/gpt-4o","project_id":null,"api_key_id":null,`+
			`"user_id":null,"quantity":2,"quantity_unit":"tokens","api_source":null}`)
	for i := range u.sums {
		u.sums[i].Provider, u.sums[i].Model, u.sums[i].Tier = "", "", ""
	}
	f((*Gateway).getCosts, "", `{"object":"organization.costs.result","amount":{"value":9007199.254740996,"currency":"usd"},"line_item":null,"project_id":null,"api_key_id":null,`+
		`"user_id":null,"quantity":null,"quantity_unit":null,"api_source":null}`)
	q := u.asked[0]
	if !q.By.Tier || !q.By.Model || q.By.User || strings.Join(q.Kinds, " ") != "chat completions responses messages" {
		t.Errorf("asked %+v", q)
	}
}
