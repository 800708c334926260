package main

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"go.opentelemetry.io/otel/attribute"

	"bulkhead/config"
)

// openTracer returns nil where tracing is off, which is the default.
func openTracer(ctx context.Context, cfg *config.Config) (trace.Tracer, func() error, error) {
	nothing := func() error { return nil }
	if cfg.OTel.Endpoint == "" || cfg.OTel.Sample == 0 {
		return nil, nothing, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(cfg.OTel.Endpoint), otlptracehttp.WithHeaders(cfg.OTel.HeaderMap()))
	if err != nil {
		return nil, nothing, fmt.Errorf("cannot open the trace exporter: %w", err)
	}
	p := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(float64(cfg.OTel.Sample)/1e6))),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "bulkhead"), attribute.String("service.version", version))),
	)
	stop := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		return p.Shutdown(ctx)
	}
	return p.Tracer("bulkhead"), stop, nil
}
