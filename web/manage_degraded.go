package web

import (
	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/tenant"
)

// degradedObject says what the company may use while what counts its limits and
// budgets is away.
type degradedObject struct {
	Object   string  `json:"object"`
	Degraded string  `json:"degraded"` // "refuse" or "allow"
	Limit    *string `json:"limit_usd"`
	Requests *int64  `json:"limit_requests"`
}

// Words for what becomes of calls then.
const (
	refuseDegraded = "refuse"
	allowDegraded  = "allow"

	maxDegradedRequests = 1_000_000
)

func toDegraded(a tenant.Allowance) degradedObject {
	o := degradedObject{Object: "organization.degraded_mode", Degraded: refuseDegraded}
	if a != (tenant.Allowance{}) {
		usd := ledger.FormatUSD(a.Nano)
		o.Degraded, o.Limit, o.Requests = allowDegraded, &usd, &a.Requests
	}
	return o
}

func (g *Gateway) getDegraded(r *request) (any, error) {
	return toDegraded(r.scope.Company().Degraded), nil
}

func (g *Gateway) setDegraded(r *request) (any, error) {
	var b struct {
		Degraded string  `json:"degraded"`
		Limit    *string `json:"limit_usd"`
		Requests *int64  `json:"limit_requests"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	var a tenant.Allowance
	switch {
	case b.Degraded != refuseDegraded && b.Degraded != allowDegraded:
		return nil, fault.Field("degraded", "degraded must be %q or %q.", refuseDegraded, allowDegraded)
	case b.Degraded == refuseDegraded && b.Limit != nil:
		return nil, fault.Field("limit_usd", "limit_usd is for %q.", allowDegraded)
	case b.Degraded == refuseDegraded && b.Requests != nil:
		return nil, fault.Field("limit_requests", "limit_requests is for %q.", allowDegraded)
	case b.Degraded == refuseDegraded:
	case b.Limit == nil:
		return nil, fault.Field("limit_usd", "limit_usd is required: what each gateway may spend for the company in one outage.")
	case b.Requests == nil || *b.Requests < 1 || *b.Requests > maxDegradedRequests:
		return nil, fault.Field("limit_requests", "limit_requests must be from 1 to %d: the calls that each gateway may make for the company in one outage.", maxDegradedRequests)
	default:
		var err error
		if a.Nano, err = parseLimit("limit_usd", *b.Limit); err != nil {
			return nil, err
		}
		a.Requests = *b.Requests
	}
	return toDegraded(a), g.Registry.SetDegraded(r.ctx, r.scope, a)
}
