package web

import (
	"bytes"
	"encoding/json"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// ruleObject is OpenAI's federation rule.
type ruleObject struct {
	ID               string          `json:"id"`
	Object           string          `json:"object"`
	ProviderID       string          `json:"workload_identity_provider_id"`
	Name             *string         `json:"name"`
	Description      *string         `json:"description"`
	Matchers         map[string]any  `json:"attribute_matchers"`
	ProjectID        string          `json:"project_id"`
	ServiceAccountID string          `json:"service_account_id"`
	Permissions      rulePermissions `json:"permissions"`
	Enabled          bool            `json:"enabled"`
	CreatedAt        int64           `json:"created_at"`
	UpdatedAt        int64           `json:"updated_at"`
}

type rulePermissions struct {
	Type   string   `json:"type"`
	Scopes []string `json:"scopes,omitempty"`
}

const (
	ofAccount  = "service_account_default"
	restricted = "restricted"
)

func toRule(f tenant.FederationRule) ruleObject {
	o := ruleObject{
		ID: f.ID, Object: "organization.workload_identity_federation_rule", ProviderID: f.ProviderID, Name: textOrNull(f.Name),
		Description: textOrNull(f.Description), Matchers: f.Matchers, ProjectID: f.ProjectID, ServiceAccountID: f.ServiceAccountID,
		Permissions: rulePermissions{Type: ofAccount}, Enabled: f.Enabled, CreatedAt: f.CreatedAt.Unix(), UpdatedAt: f.UpdatedAt.Unix(),
	}
	if f.Scopes != nil {
		o.Permissions = rulePermissions{restricted, f.Scopes}
	}
	return o
}

// ruleBody is what a rule is made or changed with. Project and account are set
// once: a rule for others is another rule.
type ruleBody struct {
	Name             nullable         `json:"name"`
	Description      nullable         `json:"description"`
	Matchers         *json.RawMessage `json:"attribute_matchers"`
	Permissions      *rulePermissions `json:"permissions"`
	Enabled          *bool            `json:"enabled"`
	ProjectID        *string          `json:"project_id"`
	ServiceAccountID *string          `json:"service_account_id"`
}

func (b *ruleBody) apply(f *tenant.FederationRule) (err error) {
	if err := b.Name.set("name", &f.Name, maxName); err != nil {
		return err
	}
	if err := b.Description.set("description", &f.Description, maxDescription); err != nil {
		return err
	}
	if b.Enabled != nil {
		f.Enabled = *b.Enabled
	}
	if b.Matchers != nil {
		if f.Matchers, err = parseMatchers(*b.Matchers); err != nil {
			return err
		}
	}
	if b.Permissions != nil {
		if f.Scopes, err = b.Permissions.scopes(); err != nil {
			return err
		}
	}
	return nil
}

// parseMatchers reads what a token must have. Without any, everybody with an
// account at the issuer would match, and many issuers have millions.
func parseMatchers(raw json.RawMessage) (map[string]any, error) {
	const field = "attribute_matchers"
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var all map[string]any
	if err := d.Decode(&all); err != nil || len(all) == 0 || len(all) > maxAttributes {
		return nil, fault.Field(field, "%s must be an object with 1 to %d attributes of the token.", field, maxAttributes)
	}
	for name, v := range all {
		if !plainText(name) {
			return nil, fault.Field(field, "The name of an attribute must be 1 to %d visible ASCII characters.", maxIssuer)
		}
		switch v := v.(type) {
		case bool:
		case string:
			if v == "" || len(v) > maxIssuer {
				return nil, fault.Field(field, "%s.%.64s must be 1 to %d bytes.", field, name, maxIssuer)
			}
		case json.Number:
			if len(v) > 32 {
				return nil, fault.Field(field, "%s.%.64s is too long a number.", field, name)
			}
		default:
			return nil, fault.Field(field, "%s.%.64s must be a string, a number, true or false.", field, name)
		}
	}
	return all, nil
}

// scopes returns the names of the permissions, nil for all of the account.
func (p *rulePermissions) scopes() ([]string, error) {
	switch {
	case p.Type == ofAccount && len(p.Scopes) == 0:
		return nil, nil
	case p.Type == ofAccount:
		return nil, fault.Field("permissions.scopes", "permissions.scopes is for the type restricted.")
	case p.Type != restricted:
		return nil, fault.Field("permissions.type", "permissions.type must be service_account_default or restricted.")
	case len(p.Scopes) == 0:
		return nil, fault.Field("permissions.scopes", "permissions.scopes must have at least one permission.")
	}
	set, unknown := tenant.PermissionsOf(p.Scopes)
	if unknown != "" {
		return nil, fault.Field("permissions.scopes", "There is no permission %.64q.", unknown)
	}
	if !set.Within(tenant.InProject) {
		return nil, fault.Field("permissions.scopes", "A rule is for one project, and can have these: %s.", tenant.InProject)
	}
	return set.Names(), nil
}

// mayGrant refuses who does not hold in the rule's project what the rule grants.
func mayGrant(r *request, f *tenant.FederationRule) error {
	grants := tenant.ModelRequest
	if f.Scopes != nil {
		grants, _ = tenant.PermissionsOf(f.Scopes)
	}
	if !r.scope.Allows(f.ProjectID, grants) {
		return fault.New(fault.Forbidden, "A federation rule grants what you do not hold in its project.").WithCode("permission_not_held")
	}
	return nil
}

func (g *Gateway) listFederationRules(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	of, err := g.Registry.IdentityProvider(r.ctx, r.scope, r.param("provider"))
	if err != nil {
		return nil, err
	}
	items, more, err := g.Registry.FederationRules(r.ctx, r.scope, of.ID, r.query("service_account_id"), p)
	return listed(p, items, more, err, toRule, func(o ruleObject) string { return o.ID })
}

func (g *Gateway) getFederationRule(r *request) (any, error) {
	f, err := g.Registry.FederationRule(r.ctx, r.scope, r.param("provider"), r.param("rule"))
	return toRule(f), err
}

func (g *Gateway) createFederationRule(r *request) (any, error) {
	var b ruleBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	now := g.now()
	f := tenant.FederationRule{ID: openai.NewID("fedrule_"), ProviderID: r.param("provider"), Enabled: true, CreatedAt: now, UpdatedAt: now}
	for _, id := range []struct {
		name     string
		from, to *string
	}{{"project_id", b.ProjectID, &f.ProjectID}, {"service_account_id", b.ServiceAccountID, &f.ServiceAccountID}} {
		if id.from == nil || *id.from == "" {
			return nil, fault.Field(id.name, "%s is required.", id.name)
		}
		*id.to = *id.from
	}
	if b.Matchers == nil {
		return nil, fault.Field("attribute_matchers", "attribute_matchers is required.")
	}
	if err := b.apply(&f); err != nil {
		return nil, err
	}
	if _, err := g.Registry.IdentityProvider(r.ctx, r.scope, f.ProviderID); err != nil {
		return nil, err
	}
	if _, err := g.Registry.ServiceAccount(r.ctx, r.scope, f.ProjectID, f.ServiceAccountID); err != nil {
		return nil, notThere(err, "service_account_id", "The project has no such service account, or there is no such project.")
	}
	if err := mayGrant(r, &f); err != nil {
		return nil, err
	}
	return toRule(f), g.Registry.CreateFederationRule(r.ctx, r.scope, f)
}

// notThere makes of an object that a body names, and that is not there, the
// client's mistake in that field.
func notThere(err error, field, message string) error {
	if known(err) == errNoObject {
		return fault.Field(field, "%s", message)
	}
	return err
}

func (g *Gateway) updateFederationRule(r *request) (any, error) {
	var b ruleBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	for name, v := range map[string]*string{"project_id": b.ProjectID, "service_account_id": b.ServiceAccountID} {
		if v != nil {
			return nil, fault.Field(name, "%s cannot be changed; make another rule.", name)
		}
	}
	f, err := g.Registry.FederationRule(r.ctx, r.scope, r.param("provider"), r.param("rule"))
	if err != nil {
		return nil, err
	}
	if err := mayGrant(r, &f); err != nil { // as it is, too: it may be made to let in somebody else
		return nil, err
	}
	if err := b.apply(&f); err != nil {
		return nil, err
	}
	if err := mayGrant(r, &f); err != nil {
		return nil, err
	}
	f, err = g.Registry.UpdateFederationRule(r.ctx, r.scope, f)
	return toRule(f), err
}

func (g *Gateway) deleteFederationRule(r *request) (any, error) {
	id := r.param("rule")
	return deleted{id, "organization.workload_identity_federation_rule.deleted", true},
		g.Registry.DeleteFederationRule(r.ctx, r.scope, r.param("provider"), id)
}
