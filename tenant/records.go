package tenant

import "time"

// ServiceAccount is a user of a project that is not a person. It owns keys.
type ServiceAccount struct {
	ID        string // "svc_acct_" and a random part
	ProjectID string
	Name      string
	Role      string // "owner", "member", or "none" for one made without membership
	CreatedAt time.Time
}

// KeyWithOwner is a project's key and the account that owns it.
type KeyWithOwner struct {
	Key   Key
	Owner ServiceAccount
}

// NewCompany is all that stands from the first moment of a company.
type NewCompany struct {
	Scope   Scope // made by Directory.NewCompany; carries the id and the name
	Project Project
	Account ServiceAccount
	Keys    []Key   // admin, live, test
	Invite  *Invite // of the first owner; nil for none
}

// CompanyInfo is what an operator sees of a company: no content, no policy.
type CompanyInfo struct {
	ID        string
	Name      string
	Status    Status
	CreatedAt time.Time
}
