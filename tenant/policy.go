package tenant

import (
	"slices"
	"time"
)

// Status is what may be done for a company.
type Status string

// The states of a company. Suspended and erasing companies are refused; an
// erased one is only a tombstone.
const (
	Active    Status = "active"
	Suspended Status = "suspended"
	Erasing   Status = "erasing"
	Erased    Status = "erased"
)

// Limits bound what is used per time. 0 is no limit.
type Limits struct {
	RequestsPerMinute int64 `json:"requests_per_minute,omitempty"`
	TokensPerMinute   int64 `json:"tokens_per_minute,omitempty"`
	Concurrent        int64 `json:"concurrent_requests,omitempty"` // requests open at the same time
}

// Zero reports whether l limits nothing.
func (l Limits) Zero() bool { return l == Limits{} }

// Allowance is what each gateway may use for a company, of the company's own
// credentials, in one outage of what counts limits and budgets; zero: nothing.
type Allowance struct {
	Nano     int64 `json:"limit_nano"` // nano-USD, each attempt at its worst case
	Requests int64 `json:"limit_requests"`
}

// Limited is one thing that has limits: the company, a project, a model within
// a project, a key.
type Limited struct {
	Kind   string // "company", "project", "model" or "key"; named in a refusal
	ID     string // the id of the project or key; project and model for a model
	Limits Limits
}

// Company is an immutable snapshot of a company and its policy.
type Company struct {
	id         ID
	Name       string
	Status     Status
	Generation int64 // of the last change to the policy
	CreatedAt  time.Time
	Limits     Limits
	Projects   map[string]*Project
	Routes     map[string]*Route
	Budgets    []*Budget // all, the operator's ceiling included; none is changed
	Calendar   *Calendar // of the company's budgets
	HasAlerts  bool      // there are spend alerts
	Prices     []Price   // by provider and model
	Degraded   Allowance // what may be used while nobody can count
	// Providers holds the names of the providers the company has a credential
	// for, sorted.
	Providers []string

	memo memo
}

// ID returns the company's id.
func (c *Company) ID() ID { return c.id }

// HasCredential reports whether the company has a credential for the provider.
func (c *Company) HasCredential(provider string) bool {
	_, found := slices.BinarySearch(c.Providers, provider)
	return found
}

// Project is a part of a company.
type Project struct {
	ID         string
	Name       string
	CreatedAt  time.Time
	ArchivedAt time.Time // zero while the project is active
	Limits     Limits    // of the project as a whole
	Models     map[string]Limits
	Permission ModelPermission
}

// ModelLimits returns the limits of one model within the project; ok is false
// where the model has none of its own.
func (p *Project) ModelLimits(model string) (l Limits, ok bool) {
	l, ok = p.Models[model]
	return l, ok
}

// PermissionMode says how a list of models is meant.
type PermissionMode string

// The modes, named as OpenAI's admin API names them. The zero value allows all.
const (
	AllowAll  PermissionMode = ""
	AllowList PermissionMode = "allow_list"
	DenyList  PermissionMode = "deny_list"
)

// ModelPermission is a project's policy on models.
type ModelPermission struct {
	Mode   PermissionMode
	Models []string // names as clients write them: "gpt-4o", "openai/gpt-4o", a route
}

// Names reports whether any of the names stands on the list.
func (m ModelPermission) Names(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(m.Models, n) })
}

// Route is a company's own model name with the targets that answer for it.
type Route struct {
	Name      string        `json:"name"`
	Targets   []RouteTarget `json:"targets"`
	CreatedAt time.Time     `json:"-"`
}

// RouteTarget is one place a route may send a call to.
type RouteTarget struct {
	// Model is "provider/model".
	Model string `json:"model"`
	// Weight makes the target the first choice this often, compared with the
	// weights of the others; 0 leaves it where it stands in the order.
	Weight int `json:"weight,omitempty"`
	// OnDisconnect says what becomes of a call when its client leaves: Cancel or
	// Drain; "" is what the gateway's configuration says.
	OnDisconnect string `json:"on_disconnect,omitempty"`
}

// What becomes of a call when its client leaves.
const (
	Cancel = "cancel" // it is cancelled at the provider
	Drain  = "drain"  // it is read to its end, and billed by what the provider says
)
