package web

import (
	"context"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// MemoryRetention keeps for how many days after its last turn a company keeps a
// conversation: -1 is as the gateway's configuration says, 0 for ever.
type MemoryRetention interface {
	MemoryDays(ctx context.Context, s tenant.Scope) (int64, error)
	SetMemoryDays(ctx context.Context, s tenant.Scope, days int64) error
}

// memoryObject is what a company has chosen, and what holds.
type memoryObject struct {
	Object        string `json:"object"`
	RetentionDays *int64 `json:"retention_days"` // null: not chosen
	KeptDays      int64  `json:"kept_days"`      // what holds; 0 is for ever
}

// maxMemoryDays bounds a time: a hundred years.
const maxMemoryDays = 36_500

func (g *Gateway) getMemory(r *request) (any, error) {
	days, err := g.Memory.Retention.MemoryDays(r.ctx, r.scope)
	if err != nil {
		return nil, err
	}
	o := memoryObject{Object: "organization.memory", KeptDays: r.settings.Memory.Days}
	if days >= 0 {
		o.RetentionDays, o.KeptDays = &days, days
	}
	return o, nil
}

func (g *Gateway) setMemory(r *request) (any, error) {
	var b struct {
		RetentionDays *int64 `json:"retention_days"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	days := int64(-1)
	if b.RetentionDays != nil {
		if days = *b.RetentionDays; days < 0 || days > maxMemoryDays {
			return nil, fault.Field("retention_days", "retention_days must be from 0, which is for ever, to %d, or null for what the gateway says.", maxMemoryDays)
		}
	}
	if err := g.Memory.Retention.SetMemoryDays(r.ctx, r.scope, days); err != nil {
		return nil, err
	}
	return g.getMemory(r)
}
