package web

import (
	"context"
	"time"

	"bulkhead/audit"
	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// Registry keeps companies and their policy. Each change is one transaction
// with its audit row, and when it is committed the tenant.Directory has
// forgotten the policy as it was: the next request sees the change.
//
// What is not there and what is another company's (or, where a project is
// named, another project's) is tenant.ErrNotFound. Lists are ordered by
// creation, then id, newest first where the page says Desc; the second result
// says whether there is more. A cursor that does not exist is ErrNotFound.
type Registry interface {
	People

	Projects(ctx context.Context, s tenant.Scope, p openai.Page, archived bool) ([]tenant.Project, bool, error)
	Project(ctx context.Context, s tenant.Scope, id string) (tenant.Project, error)
	CreateProject(ctx context.Context, s tenant.Scope, p tenant.Project) error
	// UpdateProject changes the name and the limits of the project as a whole.
	UpdateProject(ctx context.Context, s tenant.Scope, id, name string, l tenant.Limits) (tenant.Project, error)
	// ArchiveProject ends the project for good; its keys are refused from then on.
	ArchiveProject(ctx context.Context, s tenant.Scope, id string) (tenant.Project, error)

	ServiceAccounts(ctx context.Context, s tenant.Scope, project string, p openai.Page) ([]tenant.ServiceAccount, bool, error)
	ServiceAccount(ctx context.Context, s tenant.Scope, project, id string) (tenant.ServiceAccount, error)
	// CreateServiceAccount stores the account and, unless it is nil, its first key.
	CreateServiceAccount(ctx context.Context, s tenant.Scope, a tenant.ServiceAccount, first *tenant.Key) error
	UpdateServiceAccount(ctx context.Context, s tenant.Scope, project, id, name, role string) (tenant.ServiceAccount, error)
	// DeleteServiceAccount removes the account and revokes its keys.
	DeleteServiceAccount(ctx context.Context, s tenant.Scope, project, id string) error

	// ProjectKeys lists the keys of a project that are not revoked.
	ProjectKeys(ctx context.Context, s tenant.Scope, project string, p openai.Page) ([]tenant.KeyWithOwner, bool, error)
	ProjectKey(ctx context.Context, s tenant.Scope, project, id string) (tenant.KeyWithOwner, error)
	// AdminKeys lists the company's own admin keys that are not revoked.
	AdminKeys(ctx context.Context, s tenant.Scope, p openai.Page) ([]tenant.Key, bool, error)
	AdminKey(ctx context.Context, s tenant.Scope, id string) (tenant.Key, error)
	// CreateKey stores an admin key, or one more key of a service account.
	CreateKey(ctx context.Context, s tenant.Scope, k tenant.Key) error
	// UpdateKey stores the name, limits, rules and expiry of k, a project's key, and
	// nothing else of it.
	UpdateKey(ctx context.Context, s tenant.Scope, k tenant.Key) (tenant.KeyWithOwner, error)
	// RotateKey stores the hash of k that Minter.Rotate has made, a project's or an
	// admin key. It is a Conflict if the key has another value meanwhile.
	RotateKey(ctx context.Context, s tenant.Scope, k tenant.Key) error
	// RevokeKey revokes a project's key, or with project "" an admin key.
	RevokeKey(ctx context.Context, s tenant.Scope, project, id string) error

	// KeysUsed stores when keys were used, all of the company of s. It is no change
	// of policy. A key that is not there is none of its business.
	KeysUsed(ctx context.Context, s tenant.Scope, used []tenant.KeyUse) error

	// SetModelLimits sets the limits of one model within a project; zero
	// limits take them away.
	SetModelLimits(ctx context.Context, s tenant.Scope, project, model string, l tenant.Limits) error
	// SetModelPermission sets which models a project may use; mode AllowAll
	// takes the policy away.
	SetModelPermission(ctx context.Context, s tenant.Scope, project string, m tenant.ModelPermission) error

	// PutRoute stores a route in place of one with the same name, if any.
	// created says whether it is new.
	PutRoute(ctx context.Context, s tenant.Scope, r tenant.Route) (created bool, err error)
	DeleteRoute(ctx context.Context, s tenant.Scope, name string) error

	// PutPrice stores a price in place of the one of its provider and model.
	PutPrice(ctx context.Context, s tenant.Scope, p tenant.Price) error
	DeletePrice(ctx context.Context, s tenant.Scope, provider, model string) error

	// OperatorPrices returns the operator's prices, by provider and model.
	OperatorPrices(ctx context.Context) ([]tenant.Price, error)
	// PutOperatorPrice stores one in place of that of its provider and model. The
	// change feed names tenant.OperatorPrices after it.
	PutOperatorPrice(ctx context.Context, a tenant.Act, p tenant.Price) error
	DeleteOperatorPrice(ctx context.Context, a tenant.Act, provider, model string) error

	// LoadKey returns a key of the company that is not revoked, of whatever project.
	LoadKey(ctx context.Context, id tenant.ID, keyID string) (*tenant.Key, error)
	// Budgets returns all budgets, the operator's ceilings too, by creation, and
	// the calendar of the company's own.
	Budgets(ctx context.Context, s tenant.Scope) (*tenant.Calendar, []*tenant.Budget, error)
	// PutBudget stores a budget, or its limit and mode as those of the one that
	// its owner has for the same unit and period.
	PutBudget(ctx context.Context, s tenant.Scope, b tenant.Budget) (put tenant.Budget, created bool, err error)
	DeleteBudget(ctx context.Context, s tenant.Scope, id string) error
	// SetDegraded sets what may be used while nobody can count; zero: nothing.
	SetDegraded(ctx context.Context, s tenant.Scope, a tenant.Allowance) error
	SetCalendar(ctx context.Context, s tenant.Scope, c *tenant.Calendar) error

	// SpendAlerts lists the alerts of a project, or with project "" the company's.
	SpendAlerts(ctx context.Context, s tenant.Scope, project string, p openai.Page) ([]tenant.SpendAlert, bool, error)
	SpendAlert(ctx context.Context, s tenant.Scope, project, id string) (tenant.SpendAlert, error)
	CreateSpendAlert(ctx context.Context, s tenant.Scope, a tenant.SpendAlert) error
	UpdateSpendAlert(ctx context.Context, s tenant.Scope, project, id string, nano int64, url string) (tenant.SpendAlert, error)
	DeleteSpendAlert(ctx context.Context, s tenant.Scope, project, id string) error

	// Usage returns the sums of q by bucket, then by group. They are whole before
	// until, which is before q.Until where there are more sums than q.Rows, and is
	// not after q.From where the first bucket alone has more.
	Usage(ctx context.Context, s tenant.Scope, q ledger.UsageQuery) (sums []ledger.UsageSum, until time.Time, err error)
	// EntriesBetween returns entries that began in a span of time, behind the one
	// with the id after, of at most limit that are looked at. next is to be the
	// after of the next call; "" says that there are no more.
	EntriesBetween(ctx context.Context, s tenant.Scope, from, until time.Time, after string, limit int) (some []ledger.Entry, next string, err error)

	// AuditEvents lists what was done in the company and the filter lets through,
	// newest first whatever the page says.
	AuditEvents(ctx context.Context, s tenant.Scope, f audit.Filter, p openai.Page) ([]audit.Record, bool, error)

	// PutCeiling stores the operator's ceiling of a period.
	PutCeiling(ctx context.Context, a tenant.Act, s tenant.Scope, b tenant.Budget) (tenant.Budget, error)
	DeleteCeiling(ctx context.Context, a tenant.Act, s tenant.Scope, id string) error

	// CreateCompany stores a company, its first project, that project's service
	// account and the first keys in one transaction. Names need not be unique.
	CreateCompany(ctx context.Context, a tenant.Act, c tenant.NewCompany) error
	// Companies lists companies, erased ones not.
	Companies(ctx context.Context, a tenant.Act, p openai.Page) ([]tenant.CompanyInfo, bool, error)
	Company(ctx context.Context, a tenant.Act, id string) (tenant.CompanyInfo, error)
	// SetCompanyStatus suspends or resumes a company, or begins its erasure. A
	// company that is being erased or was erased cannot be resumed:
	// tenant.ErrNotFound.
	SetCompanyStatus(ctx context.Context, a tenant.Act, id string, st tenant.Status) (tenant.CompanyInfo, error)
	// EraseCompany removes every row of the company, counts that none is left,
	// destroys its data key and leaves a tombstone. The company must be in
	// status Erasing. It returns the number of rows removed per table.
	EraseCompany(ctx context.Context, a tenant.Act, s tenant.Scope) (map[string]int64, error)
}
