package web

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// span is the OpenTelemetry span of a call, by the conventions for generative
// AI (semantic conventions 1.37, "gen_ai"). It holds nothing of what was said.
// The zero span does nothing: tracing is off by default.
type span struct{ s trace.Span }

func (g *Gateway) startSpan(c *call) span {
	if g.Tracer == nil {
		return span{}
	}
	_, s := g.Tracer.Start(context.Background(), c.endpoint.String(), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(c.start))
	return span{s}
}

// end closes the span with what the call was, and one child for each attempt.
func (t span) end(c *call, err error) {
	if t.s == nil {
		return
	}
	defer t.s.End()
	if !t.s.IsRecording() {
		return
	}
	set := []attribute.KeyValue{
		attribute.String("gen_ai.operation.name", c.endpoint.String()),
		attribute.String("bulkhead.request_id", c.id),
		attribute.Int("http.response.status_code", c.status),
	}
	if c.opened {
		set = append(set, attribute.String("bulkhead.company", c.company()), attribute.String("bulkhead.project", c.scope.ProjectID()),
			attribute.Int64("bulkhead.cost_nano_usd", c.costNano))
	}
	t.s.SetAttributes(set...)
	if err != nil {
		t.s.SetStatus(codes.Error, ownCode(err))
	}
	ctx := trace.ContextWithSpan(context.Background(), t.s)
	for _, a := range c.attempts {
		e := &a.entry
		_, s := c.g.Tracer.Start(ctx, "attempt "+e.Provider, trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(e.StartedAt),
			trace.WithAttributes(
				attribute.String("gen_ai.provider.name", e.Provider),
				attribute.String("gen_ai.request.model", e.Model),
				attribute.String("bulkhead.outcome", string(e.Outcome)),
				attribute.Int64("gen_ai.usage.input_tokens", e.Usage.Input),
				attribute.Int64("gen_ai.usage.output_tokens", e.Usage.Output),
			))
		if e.Outcome != "" && e.Outcome != "answered" {
			s.SetStatus(codes.Error, string(e.Outcome))
		}
		s.End(trace.WithTimestamp(e.EndedAt))
	}
}
