package store

import (
	"context"
	"errors"
	"slices"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

var (
	companyLoaded = statement{"company_loaded",
		`SELECT name, status, limits, generation, created_at, degraded_nano, degraded_requests, embedding_model FROM company WHERE company_id = $1`}
	degradedSet = statement{"degraded_set",
		`UPDATE company SET degraded_nano = $2, degraded_requests = $3 WHERE company_id = $1`}
	companyInserted = statement{"company_inserted",
		`INSERT INTO company (company_id, name, status, limits, generation, created_at)
		VALUES ($1, $2, 'active', $3, $4, $5)`}
	companyStatusSet = statement{"company_status_set",
		`UPDATE company SET status = $2, generation = $3 WHERE company_id = $1`}

	companyOne = operatorStatement{"company_one",
		`SELECT company_id, name, status, created_at FROM company WHERE company_id = $1 AND status <> 'erased'`}
	companyList = list[operatorStatement]{
		operatorStatement{"companies_cursor", `SELECT created_at FROM company WHERE company_id = $1`},
		operatorStatement{"companies_ascending", companyRows + ` ORDER BY created_at, company_id LIMIT $5`},
		operatorStatement{"companies_descending", companyRows + ` ORDER BY created_at DESC, company_id DESC LIMIT $5`},
	}
)

const companyRows = `SELECT company_id, name, status, created_at FROM company WHERE status <> 'erased'
	AND (created_at, company_id) > ($1, $2) AND (created_at, company_id) < ($3, $4)`

// LoadCompany implements tenant.Source. Archived projects are left out: a key
// of one opens nothing.
func (db *DB) LoadCompany(ctx context.Context, id tenant.ID, c *tenant.Company) error {
	return db.read(ctx, id, func(t *tx) error {
		err := t.one(companyLoaded, []any{&c.Name, &c.Status, object{&c.Limits}, &c.Generation, moment{&c.CreatedAt},
			&c.Degraded.Nano, &c.Degraded.Requests, &c.EmbeddingModel})
		if err != nil || c.Status == tenant.Erased {
			return err
		}
		if c.Projects, err = t.projects(); err != nil {
			return err
		}
		c.Routes = map[string]*tenant.Route{}
		err = t.query(routesLoaded, func(r row) error {
			route := &tenant.Route{}
			if err := r.Scan(&route.Name, object{&route.Targets}, moment{&route.CreatedAt}); err != nil {
				return err
			}
			c.Routes[route.Name] = route
			return nil
		})
		if err != nil {
			return err
		}
		if c.Calendar, c.Budgets, err = t.budgets(); err != nil {
			return err
		}
		var alerts int64
		if err := t.one(alertsCounted, []any{&alerts}); err != nil {
			return err
		}
		c.HasAlerts = alerts > 0
		if c.Prices, err = t.prices(pricesLoaded); err != nil {
			return err
		}
		if c.Agents, c.Contexts, err = t.agents(); err != nil {
			return err
		}
		if c.Identity, err = t.identity(); err != nil {
			return err
		}
		c.Providers = nil
		err = t.query(credentialProviders, func(r row) error {
			var provider string
			err := r.Scan(&provider)
			c.Providers = append(c.Providers, provider)
			return err
		})
		slices.Sort(c.Providers) // by bytes; a database may sort by language
		if err != nil {
			return err
		}
		c.Lent, err = t.lent()
		return err
	})
}

// SetDegraded implements web.Registry.
func (db *DB) SetDegraded(ctx context.Context, s tenant.Scope, a tenant.Allowance) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(degradedSet, a.Nano, a.Requests)); err != nil {
			return err
		}
		return t.audit(audit.DegradedUpdated, "", t.company, changed[tenant.Allowance]{a})
	})
}

// CreateCompany implements web.Registry.
func (db *DB) CreateCompany(ctx context.Context, a tenant.Act, c tenant.NewCompany) error {
	company := c.Scope.Company()
	if err := checkName("name", company.Name); err != nil {
		return err
	}
	return db.policy(ctx, c.Scope.ID().String(), a.Actor(), func(t *tx) error {
		// Its place in the feed is known only at the end, but what follows refers
		// to the company's row.
		if _, err := t.exec(companyInserted, company.Name, asJSON(company.Limits), 0, micros(company.CreatedAt)); err != nil {
			return conflict(err)
		}
		if err := t.audit(audit.CompanyCreated, "", t.company); err != nil {
			return err
		}
		if err := t.addProject(c.Project); err != nil {
			return err
		}
		if err := t.addAccount(c.Account); err != nil {
			return err
		}
		for _, k := range c.Keys {
			if err := t.addKey(k); err != nil {
				return err
			}
		}
		if c.Invite != nil {
			if err := t.addInvite(*c.Invite, 1); err != nil {
				return err
			}
		}
		generation, err := t.bump()
		if err != nil {
			return err
		}
		return must(t.exec(companyBumped, generation))
	})
}

func scanCompany(r row) (c tenant.CompanyInfo, err error) {
	err = r.Scan(&c.ID, &c.Name, &c.Status, moment{&c.CreatedAt})
	return c, err
}

// Companies implements web.Registry.
func (db *DB) Companies(ctx context.Context, a tenant.Act, p openai.Page) (all []tenant.CompanyInfo, more bool, err error) {
	err = db.across(ctx, a, reading, func(t *tx) error {
		all, more, err = readPage(t, companyList, p, scanCompany, nil, nil)
		return err
	})
	return all, more, err
}

// Company implements web.Registry.
func (db *DB) Company(ctx context.Context, a tenant.Act, id string) (c tenant.CompanyInfo, err error) {
	err = db.across(ctx, a, reading, func(t *tx) error {
		c, err = t.companyInfo(id)
		return err
	})
	return c, err
}

func (t *tx) companyInfo(id string) (c tenant.CompanyInfo, err error) {
	found := false
	err = t.query(companyOne, func(r row) error { found = true; c, err = scanCompany(r); return err }, id)
	if err == nil && !found {
		err = errNoRow
	}
	return c, err
}

// SetCompanyStatus implements web.Registry. What is so already is left alone.
func (db *DB) SetCompanyStatus(ctx context.Context, a tenant.Act, id string, st tenant.Status) (c tenant.CompanyInfo, err error) {
	what, known := map[tenant.Status]audit.Type{
		tenant.Active: audit.CompanyResumed, tenant.Suspended: audit.CompanySuspended, tenant.Erasing: audit.CompanyErased,
	}[st]
	if !known {
		panic("BUG: a company is not set to " + string(st))
	}
	if id == "" {
		return c, errNoRow
	}
	err = db.policy(ctx, id, a.Actor(), func(t *tx) error {
		t.act = true
		if c, err = t.companyInfo(id); err != nil {
			return err
		}
		switch {
		case c.Status == st:
			return nil
		case c.Status == tenant.Erasing:
			return errNoRow
		}
		c.Status = st
		if err := t.audit(what, "", id); err != nil {
			return err
		}
		generation, err := t.bump()
		if err != nil {
			return err
		}
		return must(t.exec(companyStatusSet, string(st), generation))
	})
	return c, err
}

// conflict makes of "is there already" what a client may be told.
func conflict(err error) error {
	if errors.Is(err, errUnique) {
		return fault.Wrap(fault.Conflict, err, "There is one with this id or name already.")
	}
	return err
}
