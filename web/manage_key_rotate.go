package web

import (
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// The overlap of two values of a key that is rotated, in seconds.
const (
	rotateOverlap = 24 * 60 * 60      // by default
	rotateMost    = 90 * 24 * 60 * 60 // at most
)

// rotatedObject is a key at the one time its new value is shown.
type rotatedObject struct {
	ID         string `json:"id"`
	Object     string `json:"object"`
	Name       string `json:"name"`
	Value      string `json:"value"`
	Redacted   string `json:"redacted_value"`
	CreatedAt  int64  `json:"created_at"`
	ExpiresAt  *int64 `json:"expires_at"`
	OldExpires *int64 `json:"previous_value_expires_at"`
}

// rotate gives a key another value. The one before goes on for as long as the
// body says, so that nothing stops while it is put in place of it everywhere.
func (g *Gateway) rotate(r *request, k tenant.Key, object string) (any, error) {
	var b struct {
		Overlap *int64 `json:"overlap_seconds"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	overlap := int64(rotateOverlap)
	if b.Overlap != nil {
		if overlap = *b.Overlap; overlap < 0 || overlap > rotateMost {
			return nil, fault.Field("overlap_seconds", "overlap_seconds must be from 0 to %d.", int64(rotateMost))
		}
	}
	now := g.now()
	if !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt) {
		return nil, fault.New(fault.Invalid, "The key has expired; make a new one.").WithCode("expired_api_key")
	}
	value, k := g.Tenants.Minter().Rotate(r.scope, k, now.Add(time.Duration(overlap)*time.Second))
	if err := g.Registry.RotateKey(r.ctx, r.scope, k); err != nil {
		return nil, err
	}
	return rotatedObject{k.ID, object, k.Name, value, k.Redacted, k.CreatedAt.Unix(), unixTime(k.ExpiresAt), unixTime(k.OldUntil())}, nil
}

func (g *Gateway) rotateProjectKey(r *request) (any, error) {
	p, err := g.active(r)
	if err != nil {
		return nil, err
	}
	k, err := g.Registry.ProjectKey(r.ctx, r.scope, p.ID, r.param("key"))
	if err != nil {
		return nil, err
	}
	return g.rotate(r, k.Key, "organization.project.api_key")
}

func (g *Gateway) rotateAdminKey(r *request) (any, error) {
	k, err := g.Registry.AdminKey(r.ctx, r.scope, r.param("key"))
	if err != nil {
		return nil, err
	}
	return g.rotate(r, k, "organization.admin_api_key")
}

// revokeLeaked revokes the key whose value somebody has found, whatever project
// it is of: one call, by who has only the value. A value of before a rotation
// revokes the key too. What is no key of the company is not found.
func (g *Gateway) revokeLeaked(r *request) (any, error) {
	var b struct {
		Value string `json:"value"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if b.Value == "" {
		return nil, fault.Field("value", "value is required: the key, whole.")
	}
	return g.revokeValue(r, r.scope, b.Value)
}

func (g *Gateway) revokeValue(r *request, s tenant.Scope, value string) (any, error) {
	id, ok := tenant.KeyOf(s, value)
	if !ok {
		return nil, errNoObject
	}
	k, err := g.Registry.LoadKey(r.ctx, s.ID(), id)
	if err != nil {
		return nil, err
	}
	if !g.Tenants.Minter().Proves(value, k) {
		return nil, errNoObject
	}
	object := "organization.project.api_key.deleted"
	if k.Kind == tenant.KeyAdmin {
		object = "organization.admin_api_key.deleted"
	}
	return struct {
		deleted
		Project string `json:"project_id,omitempty"`
		Kind    string `json:"kind"`
	}{deleted{k.ID, object, true}, k.ProjectID, k.Kind.String()}, g.Registry.RevokeKey(r.ctx, s, k.ProjectID, k.ID)
}
