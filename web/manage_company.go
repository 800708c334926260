package web

import (
	"context"
	"fmt"
	"strings"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// companyObject is what the operator sees of a company.
type companyObject struct {
	ID        string        `json:"id"`
	Object    string        `json:"object"`
	Name      string        `json:"name"`
	Status    tenant.Status `json:"status"`
	CreatedAt int64         `json:"created_at"`
}

func toCompany(c tenant.CompanyInfo) companyObject {
	return companyObject{c.ID, "company", c.Name, c.Status, c.CreatedAt.Unix()}
}

// CreatedCompany is a new company with its first keys, at the one time that
// they are shown. The CLI and demo.json have the same form.
type CreatedCompany struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	AdminKey  string `json:"admin_key"`
	ProjectID string `json:"project_id"`
	APIKey    string `json:"api_key"`
	TestKey   string `json:"test_key"`
	// Owner is the invite of the first owner, where one was named.
	Owner *CreatedOwner `json:"owner,omitempty"`
}

// CreatedOwner is an invite at the one time that its token is shown.
type CreatedOwner struct {
	Email      string `json:"email"`
	Token      string `json:"token"`
	AcceptPath string `json:"accept_path"`
	ExpiresAt  int64  `json:"expires_at"`
}

// ProvisionCompany makes a company with a project, a service account and the
// first keys, in one transaction, and an invite for the owner's address unless
// that is "". The Act was begun for the creation.
func (g *Gateway) ProvisionCompany(ctx context.Context, act tenant.Act, name, owner string) (CreatedCompany, error) {
	name, err := checkName("name", name)
	if err != nil {
		return CreatedCompany{}, err
	}
	if owner != "" {
		if owner, err = checkEmail("owner", owner); err != nil {
			return CreatedCompany{}, err
		}
	}
	s := g.Tenants.NewCompany(act, name)
	now := g.now()
	c := tenant.NewCompany{
		Scope:   s,
		Project: tenant.Project{ID: openai.NewID("proj_"), Name: "Default project", CreatedAt: now},
	}
	c.Account = tenant.ServiceAccount{ID: openai.NewID("svc_acct_"), ProjectID: c.Project.ID, Name: "Default", Role: "member", CreatedAt: now}
	out := CreatedCompany{ID: s.ID().String(), Name: name, ProjectID: c.Project.ID}
	for _, k := range []struct {
		kind  tenant.KeyKind
		value *string
	}{{tenant.KeyAdmin, &out.AdminKey}, {tenant.KeyLive, &out.APIKey}, {tenant.KeyTest, &out.TestKey}} {
		value, key := g.Tenants.Minter().Mint(s, k.kind)
		key.Name, key.CreatedAt = "first "+k.kind.String()+" key", now
		if k.kind != tenant.KeyAdmin {
			key.ProjectID, key.ServiceAccountID = c.Project.ID, c.Account.ID
		}
		c.Keys = append(c.Keys, key)
		*k.value = value
	}
	if owner != "" {
		i, token := g.newInvite(s, owner, "owner", nil)
		c.Invite = &i
		out.Owner = &CreatedOwner{owner, token, acceptPath, i.Key.ExpiresAt.Unix()}
	}
	if err := g.Registry.CreateCompany(ctx, act, c); err != nil {
		return CreatedCompany{}, fmt.Errorf("cannot create the company: %w", err)
	}
	return out, nil
}

func (g *Gateway) createCompany(r *request) (any, error) {
	var b struct {
		Name  string `json:"name"`
		Owner string `json:"owner"` // email
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if _, err := checkName("name", b.Name); err != nil {
		return nil, err
	}
	if b.Owner != "" {
		if _, err := checkEmail("owner", b.Owner); err != nil {
			return nil, err
		}
	}
	act, err := r.operator.Begin(r.ctx, "company.create", "")
	if err != nil {
		return nil, err
	}
	return g.ProvisionCompany(r.ctx, act, b.Name, b.Owner)
}

func (g *Gateway) listCompanies(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	act, err := r.operator.Begin(r.ctx, "company.list", "")
	if err != nil {
		return nil, err
	}
	items, more, err := g.Registry.Companies(r.ctx, act, p)
	return listed(p, items, more, err, toCompany, func(o companyObject) string { return o.ID })
}

// begin records an act on the company of the path.
func (r *request) begin(action string) (tenant.Act, string, error) {
	return r.beginFor(action, r.param("company"))
}

func (r *request) beginFor(action, id string) (tenant.Act, string, error) {
	if len(id) > 64 || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return tenant.Act{}, "", fault.New(fault.NotFound, "No such company.").WithCode("company_not_found")
	}
	act, err := r.operator.Begin(r.ctx, action, id)
	return act, id, err
}

func (g *Gateway) getCompany(r *request) (any, error) {
	act, id, err := r.begin("company.get")
	if err != nil {
		return nil, err
	}
	c, err := g.Registry.Company(r.ctx, act, id)
	return toCompany(c), err
}

// suspendCompany refuses the company's requests from now on and ends those
// under way.
func (g *Gateway) suspendCompany(r *request) (any, error) {
	act, id, err := r.begin("company.suspend")
	if err != nil {
		return nil, err
	}
	c, err := g.Registry.SetCompanyStatus(r.ctx, act, id, tenant.Suspended)
	if err == nil {
		g.EndCompany(id)
	}
	return toCompany(c), err
}

func (g *Gateway) resumeCompany(r *request) (any, error) {
	act, id, err := r.begin("company.resume")
	if err != nil {
		return nil, err
	}
	c, err := g.Registry.SetCompanyStatus(r.ctx, act, id, tenant.Active)
	return toCompany(c), err
}

// eraseCompany removes all there is of a company. It is fenced first: no new
// work, calls under way ended and written down; then the rows go and are counted
// to be none, and the data key with them. A tombstone stays.
func (g *Gateway) eraseCompany(r *request) (any, error) {
	act, id, err := r.begin("company.erase")
	if err != nil {
		return nil, err
	}
	if _, err := g.Registry.SetCompanyStatus(r.ctx, act, id, tenant.Erasing); err != nil {
		return nil, err
	}
	s, err := g.Tenants.Scope(r.ctx, act, id)
	if err != nil {
		return nil, err
	}
	g.EndCompany(id)
	if err := g.load.idle(r.ctx, id); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "Calls of the company are still ending. The company is fenced; ask for its erasure again.")
	}
	if err := g.Ledger.Flush(r.ctx); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "The ledger could not be written. The company is fenced; ask for its erasure again.")
	}
	// Where credentials are kept outside the store they go first: with the rows
	// would go what is known of them.
	if outside, ok := g.Keys.(interface {
		Erase(ctx context.Context, s tenant.Scope) error
	}); ok {
		if err := outside.Erase(r.ctx, s); err != nil {
			return nil, err
		}
	}
	if outside, ok := g.Limiter.(interface {
		Forget(ctx context.Context, s tenant.Scope) error
	}); ok {
		if err := outside.Forget(r.ctx, s); err != nil {
			return nil, err
		}
	}
	if err := g.eraseKnowledge(r.ctx, s); err != nil {
		return nil, err
	}
	if g.Memory != nil {
		if err := g.Memory.Chats.Forget(r.ctx, s); err != nil {
			return nil, err
		}
	}
	rows, err := g.Registry.EraseCompany(r.ctx, act, s)
	if err != nil {
		return nil, err
	}
	g.Keys.Forget(id)
	g.metrics.forget(id)
	return struct {
		ID     string           `json:"id"`
		Object string           `json:"object"`
		Status tenant.Status    `json:"status"`
		Rows   map[string]int64 `json:"rows_removed"`
	}{id, "company.erased", tenant.Erased, rows}, nil
}
