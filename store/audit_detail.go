package store

import (
	"bulkhead/keystore"
	"bulkhead/tenant"
	"net/netip"
)

// maxDetail bounds what is kept of an act beside the ids, in bytes.
const maxDetail = 8 << 10

// detail is what an act says beside the ids, as one object in JSON. It holds
// names and settings, never secrets.
func detail(v any) string {
	text := asJSON(v)
	if len(text) > maxDetail {
		return `{"omitted":"too long"}`
	}
	return text
}

// How OpenAI's log words it: data of what was made, changes_requested of what
// was changed, which is all that the change has set.
type (
	made[T any] struct {
		Data T `json:"data"`
	}
	changed[T any] struct {
		Requested T `json:"changes_requested"`
	}
)

// titled is a project. OpenAI has both fields.
type titled struct {
	Name   string        `json:"name"`
	Title  string        `json:"title"`
	Limits tenant.Limits `json:"limits"`
}

// rates are the limits of a model within a project; 0 is none.
type rates struct {
	Requests   int64 `json:"max_requests_per_1_minute"`
	Tokens     int64 `json:"max_tokens_per_1_minute"`
	Concurrent int64 `json:"max_concurrent_requests"`
}

// member is a service account.
type member struct {
	Name string `json:"name"`
	Role string `json:"role"`
}

// keyed is a key: what it is called and may do.
type keyed struct {
	Name      string        `json:"name"`
	Kind      string        `json:"kind"`
	ExpiresAt int64         `json:"expires_at,omitempty"` // Unix time
	Limits    tenant.Limits `json:"limits"`

	AllowedIPs []netip.Prefix `json:"allowed_ips,omitempty"`
	Scopes     []string       `json:"scopes,omitempty"`
}

// rotated says that a key has another value, and until when the one before is
// taken.
type rotated struct {
	Rotated  bool  `json:"rotated"`
	OldUntil int64 `json:"previous_value_expires_at"` // Unix time
}

func keyOf(k tenant.Key) keyed {
	out := keyed{Name: k.Name, Kind: k.Kind.String(), Limits: k.Limits, AllowedIPs: k.Rules.AllowedIPs, Scopes: k.Rules.ScopeNames()}
	if !k.ExpiresAt.IsZero() {
		out.ExpiresAt = k.ExpiresAt.Unix()
	}
	return out
}

func permitted(m tenant.ModelPermission) any {
	if m.Mode == tenant.AllowAll { // the policy was taken away
		return struct{}{}
	}
	type models struct {
		Mode  tenant.PermissionMode `json:"mode"`
		Names []string              `json:"model_ids"`
	}
	return changed[models]{models{m.Mode, m.Models}}
}

func routed(r tenant.Route) any {
	type targets struct {
		Targets []tenant.RouteTarget `json:"targets"`
	}
	return made[targets]{targets{r.Targets}}
}

func credited(c keystore.Sealed) any {
	type credential struct {
		Provider string `json:"provider"`
		Version  int64  `json:"version"`
	}
	return made[credential]{credential{c.Provider, c.Version}}
}
