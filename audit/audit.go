// Package audit says what is written down about who did what in a company, and
// how one can tell that it is still what was written.
//
// The rows are append-only: the store writes each one in the transaction of the
// act it tells of, so that no change is without its row and no row without its
// change. They never hold prompts, answers, documents or secrets.
//
// Three parts: the rows themselves (this file), the chain that each company's
// rows make (chain.go, check.go), and the Tally of what happens too often for a
// row each time: refused access and reads of content (tally.go).
package audit

import (
	"strings"
	"time"

	"bulkhead/tenant"
)

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
	PriceCreated           Type = "price.created"
	PriceUpdated           Type = "price.updated"
	PriceDeleted           Type = "price.deleted"
	BudgetCreated          Type = "budget.created"
	BudgetUpdated          Type = "budget.updated"
	BudgetDeleted          Type = "budget.deleted"
	DegradedUpdated        Type = "degraded_mode.updated"
	ZoneUpdated            Type = "time_zone.updated"
	SpendAlertCreated      Type = "spend_alert.created"
	SpendAlertUpdated      Type = "spend_alert.updated"
	SpendAlertDeleted      Type = "spend_alert.deleted"
	AgentCreated           Type = "agent.created"
	AgentUpdated           Type = "agent.updated"
	AgentDeleted           Type = "agent.deleted"
	DefaultAgentUpdated    Type = "default_agent.updated"
	ContextCreated         Type = "context.created"
	ContextUpdated         Type = "context.updated"
	ContextDeleted         Type = "context.deleted"
	EmbeddingModelUpdated  Type = "embedding_model.updated"
	FileCreated            Type = "file.created"
	FileDeleted            Type = "file.deleted"
	VectorStoreCreated     Type = "vector_store.created"
	VectorStoreUpdated     Type = "vector_store.updated"
	VectorStoreDeleted     Type = "vector_store.deleted"
	ConversationCreated    Type = "conversation.created"
	ConversationUpdated    Type = "conversation.updated"
	ConversationDeleted    Type = "conversation.deleted"
	MemoryRetentionUpdated Type = "memory_retention.updated"
	CredentialCreated      Type = "credential.created"
	CredentialUpdated      Type = "credential.updated"
	CredentialDeleted      Type = "credential.deleted"
	UserAdded              Type = "user.added"
	UserUpdated            Type = "user.updated"
	UserDeleted            Type = "user.deleted"
	PasswordChanged        Type = "user.password.changed"
	InviteSent             Type = "invite.sent"
	InviteAccepted         Type = "invite.accepted"
	InviteDeleted          Type = "invite.deleted"
	GroupCreated           Type = "group.created"
	GroupUpdated           Type = "group.updated"
	GroupDeleted           Type = "group.deleted"
	RoleCreated            Type = "role.created"
	RoleUpdated            Type = "role.updated"
	RoleDeleted            Type = "role.deleted"
	RoleAssigned           Type = "role.assignment.created"
	RoleUnassigned         Type = "role.assignment.deleted"
	LoginSucceeded         Type = "login.succeeded"
	LogoutSucceeded        Type = "logout.succeeded"
	LentUpdated            Type = "lent_credentials.updated"
	CompanyCreated         Type = "company.created"
	CompanySuspended       Type = "company.suspended"
	CompanyResumed         Type = "company.resumed"
	CompanyErased          Type = "company.erased"

	IdentityProviderCreated Type = "workload_identity_provider.created"
	IdentityProviderUpdated Type = "workload_identity_provider.updated"
	IdentityProviderDeleted Type = "workload_identity_provider.deleted"
	FederationRuleCreated   Type = "workload_identity_provider_mapping.created"
	FederationRuleUpdated   Type = "workload_identity_provider_mapping.updated"
	FederationRuleDeleted   Type = "workload_identity_provider_mapping.deleted"
	AudienceApproved        Type = "audience.approved"
	AudienceRevoked         Type = "audience.revoked"
)

// What a Tally counts: one row stands for many.
const (
	AccessDenied Type = "access.denied"                                // Object is the route
	ContentRead  Type = "content.read"                                 // Object is the kind of what was read
	LoginFailed  Type = "login.failed"                                 // Object is the id of the user whose password it was not, "" for nobody's
	TokenLogin   Type = "login.succeeded"                              // Object is the federation rule that let a token in
	TokenIssued  Type = "tenant.workload_identity.access_token.issued" // Object likewise
)

// Event is one row of a company's audit log.
type Event struct {
	ID        string // "audit_log-" and a random part
	Type      Type
	At        time.Time // when the row was written, to the microsecond
	Actor     string    // see the constants below
	ProjectID string    // "" for what concerns the company as a whole
	Object    string    // the id of what was acted on
	Count     int64     // how many acts the row stands for; 1 but for what a Tally counts
	Detail    string    // "", or a JSON object with what more there is to say
}

// How an Actor begins, before the id of a key or a person. Beside these there are
// "gateway", for work in the background, and Unknown.
const (
	ByKey      = "key:"      // a proved key of the company
	ByOperator = "operator:" // a key of the operator, or "gateway"
	ByClaim    = "claimed:"  // a key that was named and not proved
	ByUser     = "user:"     // a person, in a session
	ByInvite   = "invite:"   // who accepts an invite
)

// Unknown is the actor of requests with keys that name the company and that it
// never had.
const Unknown = "unknown"

// Record is an Event as a company sees it, with what belongs to it elsewhere.
type Record struct {
	Event
	ProjectName string // of ProjectID, as it now is
	AccountID   string // of the service account of the key that acted; "" for others
	UserEmail   string // of the person who acted, if they are still there
}

// Filter narrows a list of Records. The zero Filter lets everything through; an
// empty list of values does not narrow.
type Filter struct {
	From, Until time.Time // At is not before From, and before Until; zero: open
	Types       []string
	Projects    []string
	Objects     []string
	Actors      []string // ids of keys, of service accounts or of people, or "gateway"
}

// Caller is who a row is about that a Tally writes.
type Caller struct {
	Company tenant.ID
	Project string // of the key; "" for a company's admin key
	KeyID   string // or of the session
	User    string // of the person, in a session
	Proved  bool   // the key is the one with this id; else that is only said
}

// Proved returns the caller of a scope.
func Proved(s tenant.Scope) Caller {
	c := Caller{Company: s.ID(), Project: s.ProjectID(), KeyID: s.KeyID(), Proved: true}
	if k := s.Key(); k == nil || k.Kind == tenant.KeySession {
		c.User = s.UserID()
	}
	return c
}

// Claimed returns the caller that a refused key claims to be.
func Claimed(c tenant.Claim) Caller {
	return Caller{Company: c.Company, Project: c.ProjectID, KeyID: c.KeyID, Proved: c.Proved}
}

// KeyOf returns the id of the key in an Actor and how the Actor begins.
func KeyOf(actor string) (by, id string) {
	for _, by := range []string{ByKey, ByOperator, ByClaim, ByUser, ByInvite} {
		if id, ok := strings.CutPrefix(actor, by); ok {
			return by, id
		}
	}
	return "", actor
}
