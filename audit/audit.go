// Package audit says what is written down about who did what in a company. The
// rows are append-only: the store writes each one in the transaction of the act
// it tells of, so that no change is without its row and no row without its
// change. They never hold prompts, answers, documents or secrets.
package audit

import "time"

// Type names an act, as OpenAI's audit log names it where OpenAI has the act.
type Type string

// The acts of a company's administration.
const (
	ProjectCreated         Type = "project.created"
	ProjectUpdated         Type = "project.updated"
	ProjectArchived        Type = "project.archived"
	APIKeyCreated          Type = "api_key.created"
	APIKeyUpdated          Type = "api_key.updated"
	APIKeyDeleted          Type = "api_key.deleted"
	ServiceAccountCreated  Type = "service_account.created"
	ServiceAccountUpdated  Type = "service_account.updated"
	ServiceAccountDeleted  Type = "service_account.deleted"
	RateLimitUpdated       Type = "rate_limit.updated"
	ModelPermissionUpdated Type = "model_permissions.updated"
	ModelPermissionDeleted Type = "model_permissions.deleted"
	RouteCreated           Type = "route.created"
	RouteUpdated           Type = "route.updated"
	RouteDeleted           Type = "route.deleted"
	BudgetCreated          Type = "budget.created"
	BudgetUpdated          Type = "budget.updated"
	BudgetDeleted          Type = "budget.deleted"
	ZoneUpdated            Type = "time_zone.updated"
	CredentialCreated      Type = "credential.created"
	CredentialUpdated      Type = "credential.updated"
	CredentialDeleted      Type = "credential.deleted"
	CompanyCreated         Type = "company.created"
	CompanySuspended       Type = "company.suspended"
	CompanyResumed         Type = "company.resumed"
	CompanyErased          Type = "company.erased"
)

// Event is one row of a company's audit log.
type Event struct {
	ID        string // "audit_log-" and a random part
	Type      Type
	At        time.Time
	Actor     string // "key:<id>", "operator:<id>" or "gateway"
	ProjectID string // "" for what concerns the company as a whole
	Object    string // the id of what was acted on
}
