package web

import (
	"fmt"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"bulkhead/tenant"
)

// TestSpans looks at what is traced of a call that needed two attempts, and that
// nothing of what was said is in it.
func TestSpans(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	l := newLab(t, labOptions{})
	l.g.Tracer = provider.Tracer("test")
	key, _ := l.company("acme", tenant.KeyLive, routeTo("up/status-500", "up/ok"))
	if a := l.chat(key, "best", ""); a.status != 200 {
		t.Fatal(a)
	}
	if a := l.chat(key, "up/status-400", ""); a.status != 400 {
		t.Fatal(a)
	}
	l.settle()

	got := spans.GetSpans()
	byID := map[string]tracetest.SpanStub{}
	for _, s := range got {
		byID[s.SpanContext.SpanID().String()] = s
	}
	var names []string
	for _, s := range got {
		parent := byID[s.Parent.SpanID().String()].Name
		names = append(names, strings.TrimSpace(parent+" > "+s.Name+" "+s.Status.Code.String()+" "+attr(s.Attributes, "bulkhead.outcome")))
		for _, kv := range s.Attributes {
			if strings.Contains(kv.Value.String(), promptCanary) || strings.Contains(kv.Value.String(), vendorSecret) {
				t.Errorf("span %q: %s holds what must not be traced", s.Name, kv.Key)
			}
		}
	}
	want := "[chat > attempt up Error refused chat > attempt up Unset answered > chat Unset chat > attempt up Error refused > chat Error]"
	if fmt.Sprint(names) != want {
		t.Errorf("spans are\n%v, want\n%s", names, want)
	}
	if n := attr(got[1].Attributes, "gen_ai.usage.output_tokens"); n != "4" {
		t.Errorf("output tokens are %q", n)
	}
	if got[0].StartTime.After(got[1].StartTime) || got[1].StartTime.Before(got[2].StartTime) {
		t.Error("attempts do not lie within the call, in order")
	}
}

func attr(all []attribute.KeyValue, name string) string {
	for _, kv := range all {
		if string(kv.Key) == name {
			return kv.Value.String()
		}
	}
	return ""
}

// TestMetricCompanies counts the series of companies: the first have their own,
// the rest share one, and a company that is gone has none.
func TestMetricCompanies(t *testing.T) {
	l := newLab(t, labOptions{settings: func(s *Settings) { s.MetricCompanies = 2 }})
	var ids []string
	for i := range 4 {
		key, s := l.company(fmt.Sprint("company ", i), tenant.KeyLive, nil)
		ids = append(ids, s.ID().String())
		if a := l.chat(key, "sandbox/echo", ""); a.status != 200 {
			t.Fatal(a)
		}
	}
	l.settle()
	series := func(company string) int {
		families, err := l.g.metrics.registry.Gather()
		must(t, err)
		n := 0
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, p := range m.GetLabel() {
					if p.GetName() == "company" && p.GetValue() == company {
						n++
					}
				}
			}
		}
		return n
	}
	for i, id := range ids {
		if own := series(id) > 0; own != (i < 2) {
			t.Errorf("company %d has series of its own: %v", i, own)
		}
	}
	if series(otherLabel) == 0 {
		t.Error("the other companies are not counted")
	}
	l.g.metrics.forget(ids[0])
	if series(ids[0]) != 0 || series(ids[1]) == 0 {
		t.Error("the wrong series were forgotten")
	}
}
