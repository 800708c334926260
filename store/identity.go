package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// As many as OpenAI has.
const (
	maxIdentityProviders = 50 // of one company
	maxFederationRules   = 50 // of one provider
)

const (
	identityColumns = `id, name, description, issuer, audience, enabled, jwks, discovery_url, attributes, created_at, updated_at`
	identityRows    = `SELECT ` + identityColumns + ` FROM identity_provider WHERE company_id = $1`
	ruleColumns     = `id, provider_id, name, description, matchers, project_id, service_account_id, scopes, enabled, created_at, updated_at`
	ruleRows        = `SELECT ` + ruleColumns + ` FROM federation_rule WHERE company_id = $1`
	ruleFilter      = ` AND provider_id = $7 AND ($8 = '' OR service_account_id = $8)`
)

var (
	identityList = list[statement]{
		statement{"identity_providers_cursor", `SELECT created_at FROM identity_provider WHERE company_id = $1 AND id = $2`},
		statement{"identity_providers_ascending", identityRows + between + oldToNew},
		statement{"identity_providers_descending", identityRows + between + newToOld},
	}
	ruleList = list[statement]{
		statement{"federation_rules_cursor",
			`SELECT created_at FROM federation_rule WHERE company_id = $1 AND id = $2 AND provider_id = $3`},
		statement{"federation_rules_ascending", ruleRows + ruleFilter + between + oldToNew},
		statement{"federation_rules_descending", ruleRows + ruleFilter + between + newToOld},
	}
)

var (
	identityLoaded   = statement{"identity_providers_loaded", identityRows + ` ORDER BY created_at, id`}
	identityOne      = statement{"identity_provider_one", identityRows + ` AND id = $2`}
	identityCounted  = statement{"identity_providers_counted", `SELECT count(*) FROM identity_provider WHERE company_id = $1`}
	identityInserted = statement{"identity_provider_inserted",
		`INSERT INTO identity_provider (company_id, ` + identityColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`}
	identityUpdated = statement{"identity_provider_updated",
		`UPDATE identity_provider SET name = $3, description = $4, issuer = $5, audience = $6, enabled = $7, jwks = $8,
			discovery_url = $9, attributes = $10, updated_at = $11
		WHERE company_id = $1 AND id = $2`}
	identityDeleted = statement{"identity_provider_deleted", `DELETE FROM identity_provider WHERE company_id = $1 AND id = $2`}

	rulesLoaded  = statement{"federation_rules_loaded", ruleRows + ` ORDER BY created_at, id`}
	ruleOne      = statement{"federation_rule_one", ruleRows + ` AND provider_id = $2 AND id = $3`}
	rulesCounted = statement{"federation_rules_counted",
		`SELECT count(*) FROM federation_rule WHERE company_id = $1 AND provider_id = $2`}
	ruleInserted = statement{"federation_rule_inserted",
		`INSERT INTO federation_rule (company_id, ` + ruleColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`}
	ruleUpdated = statement{"federation_rule_updated",
		`UPDATE federation_rule SET name = $4, description = $5, matchers = $6, scopes = $7, enabled = $8, updated_at = $9
		WHERE company_id = $1 AND provider_id = $2 AND id = $3`}
	ruleDeleted = statement{"federation_rule_deleted",
		`DELETE FROM federation_rule WHERE company_id = $1 AND provider_id = $2 AND id = $3 RETURNING id, project_id, service_account_id, provider_id`}
	rulesOfProviderDeleted = statement{"federation_rules_of_provider_deleted",
		`DELETE FROM federation_rule WHERE company_id = $1 AND provider_id = $2 RETURNING id, project_id, service_account_id, provider_id`}
	rulesOfAccountDeleted = statement{"federation_rules_of_account_deleted",
		`DELETE FROM federation_rule WHERE company_id = $1 AND service_account_id = $2 RETURNING id, project_id, service_account_id, provider_id`}
)

// matchersOf scans the matchers of a rule, with numbers as they were written.
type matchersOf struct{ to *map[string]any }

func (m matchersOf) Scan(v any) error {
	var raw json.RawMessage
	if err := (object{&raw}).Scan(v); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return d.Decode(m.to)
}

func identityDest(p *tenant.IdentityProvider) []any {
	return []any{&p.ID, &p.Name, &p.Description, &p.Issuer, &p.Audience, &p.Enabled, &p.JWKS, &p.DiscoveryURL,
		object{&p.Attributes}, moment{&p.CreatedAt}, moment{&p.UpdatedAt}}
}

func scanIdentity(r row) (p tenant.IdentityProvider, err error) {
	err = r.Scan(identityDest(&p)...)
	return p, err
}

func ruleDest(r *tenant.FederationRule) []any {
	return []any{&r.ID, &r.ProviderID, &r.Name, &r.Description, matchersOf{&r.Matchers}, &r.ProjectID, &r.ServiceAccountID,
		object{&r.Scopes}, &r.Enabled, moment{&r.CreatedAt}, moment{&r.UpdatedAt}}
}

func scanRule(r row) (f tenant.FederationRule, err error) {
	err = r.Scan(ruleDest(&f)...)
	return f, err
}

// identity returns whose tokens the company trusts; nil if nobody's.
func (t *tx) identity() (*tenant.Identity, error) {
	found := &tenant.Identity{}
	at := map[string]*tenant.IdentityProvider{}
	err := t.query(identityLoaded, func(r row) error {
		p, err := scanIdentity(r)
		at[p.ID] = &p
		found.Providers = append(found.Providers, &p)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(at) > 0 {
		err = t.query(rulesLoaded, func(r row) error {
			f, err := scanRule(r)
			if p := at[f.ProviderID]; p != nil {
				p.Rules = append(p.Rules, &f)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	err = t.query(audiencesOfCompany, func(r row) error {
		a, err := scanAudience(r)
		found.Audiences = append(found.Audiences, a.Audience)
		return err
	}, t.company)
	if err != nil || len(at) == 0 && len(found.Audiences) == 0 {
		return nil, err
	}
	return found, nil
}

// IdentityProviders implements web.Registry.
func (db *DB) IdentityProviders(ctx context.Context, s tenant.Scope, p openai.Page) (all []tenant.IdentityProvider, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, more, err = readPage(t, identityList, p, scanIdentity, nil, nil)
		return err
	})
	return all, more, err
}

// IdentityProvider implements web.Registry.
func (db *DB) IdentityProvider(ctx context.Context, s tenant.Scope, id string) (p tenant.IdentityProvider, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error { return t.one(identityOne, identityDest(&p), id) })
	return p, err
}

// CreateIdentityProvider implements web.Registry.
func (db *DB) CreateIdentityProvider(ctx context.Context, s tenant.Scope, p tenant.IdentityProvider) error {
	if err := checkName("name", p.Name); err != nil {
		return err
	}
	return db.change(ctx, s, func(t *tx) error {
		var n int64
		if err := t.one(identityCounted, []any{&n}); err != nil {
			return err
		}
		if n >= maxIdentityProviders {
			return fault.New(fault.Invalid, "The company has %d identity providers, which is as many as there may be.", maxIdentityProviders)
		}
		_, err := t.exec(identityInserted, p.ID, p.Name, p.Description, p.Issuer, p.Audience, p.Enabled, p.JWKS, p.DiscoveryURL,
			asJSON(p.Attributes), micros(p.CreatedAt), micros(p.UpdatedAt))
		if err != nil {
			return sameIssuer(err)
		}
		return t.audit(audit.IdentityProviderCreated, "", p.ID, made[trusted]{trustOf(&p)})
	})
}

// UpdateIdentityProvider implements web.Registry.
func (db *DB) UpdateIdentityProvider(ctx context.Context, s tenant.Scope, p tenant.IdentityProvider) (now tenant.IdentityProvider, err error) {
	if err := checkName("name", p.Name); err != nil {
		return now, err
	}
	err = db.change(ctx, s, func(t *tx) error {
		if err := t.one(identityOne, identityDest(&now), p.ID); err != nil {
			return err
		}
		_, err := t.exec(identityUpdated, p.ID, p.Name, p.Description, p.Issuer, p.Audience, p.Enabled, p.JWKS, p.DiscoveryURL,
			asJSON(p.Attributes), micros(later(t.now, now.UpdatedAt)))
		if err != nil {
			return sameIssuer(err)
		}
		now = tenant.IdentityProvider{} // JSON is read into what is there
		if err := t.one(identityOne, identityDest(&now), p.ID); err != nil {
			return err
		}
		return t.audit(audit.IdentityProviderUpdated, "", p.ID, changed[trusted]{trustOf(&now)})
	})
	return now, err
}

// later returns when something is changed that was last changed then: two
// changes have not the same time, since keys given out are held against it.
func later(now, before time.Time) time.Time {
	if next := before.Add(time.Microsecond); now.Before(next) {
		return next
	}
	return now
}

// DeleteIdentityProvider implements web.Registry. Its rules go with it.
func (db *DB) DeleteIdentityProvider(ctx context.Context, s tenant.Scope, id string) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := t.deleteRules(rulesOfProviderDeleted, id); err != nil {
			return err
		}
		if err := must(t.exec(identityDeleted, id)); err != nil {
			return err
		}
		return t.audit(audit.IdentityProviderDeleted, "", id)
	})
}

func sameIssuer(err error) error {
	if errors.Is(err, errUnique) {
		f := fault.Wrap(fault.Conflict, err, "There is an identity provider with this issuer and audience already.")
		f.Param = "issuer"
		return f
	}
	return err
}

// FederationRules implements web.Registry.
func (db *DB) FederationRules(ctx context.Context, s tenant.Scope, provider, account string, p openai.Page) (all []tenant.FederationRule, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		var of tenant.IdentityProvider
		if err := t.one(identityOne, identityDest(&of), provider); err != nil {
			return err
		}
		all, more, err = readPage(t, ruleList, p, scanRule, []any{provider}, []any{storable(account)})
		return err
	})
	return all, more, err
}

// FederationRule implements web.Registry.
func (db *DB) FederationRule(ctx context.Context, s tenant.Scope, provider, id string) (f tenant.FederationRule, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error { return t.one(ruleOne, ruleDest(&f), provider, id) })
	return f, err
}

// CreateFederationRule implements web.Registry.
func (db *DB) CreateFederationRule(ctx context.Context, s tenant.Scope, f tenant.FederationRule) error {
	return db.change(ctx, s, func(t *tx) error {
		var p tenant.IdentityProvider
		if err := t.one(identityOne, identityDest(&p), f.ProviderID); err != nil {
			return err
		}
		if err := t.openProject(f.ProjectID); err != nil {
			return err
		}
		if _, err := t.account(f.ProjectID, f.ServiceAccountID); err != nil {
			return err
		}
		var n int64
		if err := t.one(rulesCounted, []any{&n}, f.ProviderID); err != nil {
			return err
		}
		if n >= maxFederationRules {
			return fault.New(fault.Invalid, "The identity provider has %d federation rules, which is as many as there may be.", maxFederationRules)
		}
		_, err := t.exec(ruleInserted, f.ID, f.ProviderID, f.Name, f.Description, asJSON(f.Matchers), f.ProjectID, f.ServiceAccountID,
			asJSON(f.Scopes), f.Enabled, micros(f.CreatedAt), micros(f.UpdatedAt))
		if err != nil {
			return conflict(err)
		}
		return t.audit(audit.FederationRuleCreated, f.ProjectID, f.ID, mapped[made[federated]]{f.ProviderID, made[federated]{federationOf(&f)}})
	})
}

// UpdateFederationRule implements web.Registry.
func (db *DB) UpdateFederationRule(ctx context.Context, s tenant.Scope, f tenant.FederationRule) (now tenant.FederationRule, err error) {
	err = db.change(ctx, s, func(t *tx) error {
		if err := t.one(ruleOne, ruleDest(&now), f.ProviderID, f.ID); err != nil {
			return err
		}
		_, err := t.exec(ruleUpdated, f.ProviderID, f.ID, f.Name, f.Description, asJSON(f.Matchers), asJSON(f.Scopes), f.Enabled,
			micros(later(t.now, now.UpdatedAt)))
		if err != nil {
			return err
		}
		now = tenant.FederationRule{} // JSON is read into what is there
		if err := t.one(ruleOne, ruleDest(&now), f.ProviderID, f.ID); err != nil {
			return err
		}
		return t.audit(audit.FederationRuleUpdated, now.ProjectID, now.ID, mapped[changed[federated]]{now.ProviderID, changed[federated]{federationOf(&now)}})
	})
	return now, err
}

// DeleteFederationRule implements web.Registry.
func (db *DB) DeleteFederationRule(ctx context.Context, s tenant.Scope, provider, id string) error {
	return db.change(ctx, s, func(t *tx) error {
		var f tenant.FederationRule
		if err := t.one(ruleOne, ruleDest(&f), provider, id); err != nil {
			return err
		}
		return t.deleteRules(ruleDeleted, provider, id)
	})
}

// deleteRules deletes the rules that st finds.
func (t *tx) deleteRules(st statement, args ...any) error {
	var gone []tenant.FederationRule
	err := t.query(st, func(r row) error {
		var f tenant.FederationRule
		err := r.Scan(&f.ID, &f.ProjectID, &f.ServiceAccountID, &f.ProviderID)
		gone = append(gone, f)
		return err
	}, args...)
	if err != nil {
		return err
	}
	for _, f := range gone {
		said := unmapped{f.ProviderID, f.ProjectID, f.ServiceAccountID}
		if err := t.audit(audit.FederationRuleDeleted, f.ProjectID, f.ID, said); err != nil {
			return err
		}
	}
	return nil
}

// What is written down of providers and rules. Keys are public and long: of them
// only where they are from.
type (
	trusted struct {
		Name     string `json:"name"`
		Issuer   string `json:"issuer"`
		Audience string `json:"audience"`
		Enabled  bool   `json:"enabled"`
		Keys     string `json:"keys"`
	}
	federated struct {
		Name             string         `json:"name,omitempty"`
		Matchers         map[string]any `json:"attribute_matchers"`
		ProjectID        string         `json:"project_id"`
		ServiceAccountID string         `json:"service_account_id"`
		Scopes           []string       `json:"scopes"` // null: all of the account
		Enabled          bool           `json:"enabled"`
	}
	unmapped struct {
		ProviderID       string `json:"identity_provider_id"`
		ProjectID        string `json:"project_id"`
		ServiceAccountID string `json:"service_account_id"`
	}
)

// mapped is what is said of a rule, with its provider.
type mapped[T any] struct {
	provider string
	said     T
}

// MarshalJSON puts the provider beside what is said.
func (m mapped[T]) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(m.said)
	if err != nil {
		return nil, err
	}
	all := map[string]any{}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	all["identity_provider_id"] = m.provider
	return json.Marshal(all)
}

func trustOf(p *tenant.IdentityProvider) trusted {
	t := trusted{p.Name, p.Issuer, p.Audience, p.Enabled, "uploaded"}
	if p.JWKS == "" {
		t.Keys = "discovery"
		if p.DiscoveryURL != "" {
			t.Keys = p.DiscoveryURL
		}
	}
	return t
}

func federationOf(f *tenant.FederationRule) federated {
	return federated{f.Name, f.Matchers, f.ProjectID, f.ServiceAccountID, f.Scopes, f.Enabled}
}
