package web

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"unicode"

	"bulkhead/egress"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// identityObject is OpenAI's workload identity provider.
type identityObject struct {
	ID           string             `json:"id"`
	Object       string             `json:"object"`
	Name         string             `json:"name"`
	Description  *string            `json:"description"`
	Type         string             `json:"type"`
	Issuer       string             `json:"issuer"`
	Audience     string             `json:"audience"`
	Enabled      bool               `json:"enabled"`
	Verification verification       `json:"verification"`
	Attributes   []tenant.Attribute `json:"attribute_transformations"`
	CreatedAt    int64              `json:"created_at"`
	UpdatedAt    int64              `json:"updated_at"`
}

// verification says where the keys are: uploaded, or found. Which of the two
// members is there depends on the type.
type verification struct {
	Type         string          `json:"type"`
	DiscoveryURL *string         `json:"discovery_url"`
	JWKS         json.RawMessage `json:"jwks"`
}

const (
	byDiscovery = "discovery"
	byUpload    = "uploaded_jwks"
)

// MarshalJSON leaves out the member of the other type.
func (v verification) MarshalJSON() ([]byte, error) {
	if v.Type == byUpload {
		return json.Marshal(map[string]any{"type": v.Type, "jwks": v.JWKS})
	}
	return json.Marshal(map[string]any{"type": v.Type, "discovery_url": v.DiscoveryURL})
}

func toIdentity(p tenant.IdentityProvider) identityObject {
	o := identityObject{
		ID: p.ID, Object: "organization.workload_identity_provider", Name: p.Name, Description: textOrNull(p.Description), Type: "oidc",
		Issuer: p.Issuer, Audience: p.Audience, Enabled: p.Enabled, Attributes: p.Attributes,
		Verification: verification{Type: byDiscovery, DiscoveryURL: textOrNull(p.DiscoveryURL)},
		CreatedAt:    p.CreatedAt.Unix(), UpdatedAt: p.UpdatedAt.Unix(),
	}
	if p.JWKS != "" {
		o.Verification = verification{Type: byUpload, JWKS: json.RawMessage(p.JWKS)}
	}
	if o.Attributes == nil {
		o.Attributes = []tenant.Attribute{}
	}
	return o
}

func identityID(o identityObject) string { return o.ID }

func textOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// nullable is a field that can be left out, to keep it, or be null, to empty it.
type nullable struct {
	there bool
	text  string
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *nullable) UnmarshalJSON(b []byte) error {
	n.there = true
	if string(b) == "null" {
		n.text = ""
		return nil
	}
	return json.Unmarshal(b, &n.text)
}

// maxDescription bounds a description, in bytes.
const maxDescription = 1024

func (n *nullable) set(field string, to *string, most int) error {
	switch {
	case !n.there:
		return nil
	case len(n.text) > most:
		return fault.Field(field, "%s must be at most %d bytes.", field, most)
	case strings.ContainsFunc(n.text, unicode.IsControl):
		return fault.Field(field, "%s must not hold control characters.", field)
	}
	*to = strings.TrimSpace(n.text)
	return nil
}

// identityBody is what a provider is made or changed with. What is left out stays
// as it is.
type identityBody struct {
	Name         *string             `json:"name"`
	Description  nullable            `json:"description"`
	Type         *string             `json:"type"`
	Issuer       *string             `json:"issuer"`
	Audience     *string             `json:"audience"`
	Enabled      *bool               `json:"enabled"`
	Verification *verification       `json:"verification"`
	Attributes   *[]tenant.Attribute `json:"attribute_transformations"`
}

// apply checks the body and puts it into p.
func (b *identityBody) apply(r *request, p *tenant.IdentityProvider) (err error) {
	if b.Type != nil && *b.Type != "oidc" {
		return fault.Field("type", "type must be oidc.")
	}
	if b.Name != nil {
		if p.Name, err = checkName("name", *b.Name); err != nil {
			return err
		}
	}
	if err := b.Description.set("description", &p.Description, maxDescription); err != nil {
		return err
	}
	if b.Issuer != nil {
		p.Issuer = *b.Issuer
	}
	if b.Audience != nil {
		p.Audience = *b.Audience
	}
	if b.Enabled != nil {
		p.Enabled = *b.Enabled
	}
	if b.Verification != nil {
		if err := b.Verification.apply(r, p); err != nil {
			return err
		}
	}
	if b.Attributes != nil {
		if p.Attributes, err = checkAttributes(*b.Attributes); err != nil {
			return err
		}
	}
	if err := checkIssuer(r, p); err != nil {
		return err
	}
	if !r.scope.Company().Takes(p.Audience) {
		return fault.Field("audience", "audience must be %q, which is your company's own, or one that the operator of the gateway has approved for it.",
			r.scope.ID().Audience()).WithCode("audience_not_approved")
	}
	return nil
}

func (v *verification) apply(r *request, p *tenant.IdentityProvider) error {
	switch v.Type {
	case byDiscovery:
		if len(v.JWKS) > 0 {
			return fault.Field("verification.jwks", "verification.jwks is for the type uploaded_jwks.")
		}
		p.JWKS, p.DiscoveryURL = "", ""
		if v.DiscoveryURL == nil {
			return nil
		}
		if _, err := egress.CheckURL(*v.DiscoveryURL, r.settings.AllowPrivate); err != nil {
			return urlField("verification.discovery_url", err)
		}
		p.DiscoveryURL = *v.DiscoveryURL
	case byUpload:
		if v.DiscoveryURL != nil {
			return fault.Field("verification.discovery_url", "verification.discovery_url is for the type discovery.")
		}
		var small bytes.Buffer
		if len(v.JWKS) == 0 || json.Compact(&small, v.JWKS) != nil {
			return fault.Field("verification.jwks", "verification.jwks is required: an object with a list of keys.")
		}
		if err := tenant.CheckJWKS(small.Bytes()); err != nil {
			return fault.Field("verification.jwks", "verification.jwks is not taken: %s.", err)
		}
		p.JWKS, p.DiscoveryURL = small.String(), ""
	default:
		return fault.Field("verification.type", "verification.type must be discovery or uploaded_jwks.")
	}
	return nil
}

// urlField says what is wrong with an address in the field it is in.
func urlField(field string, err error) error {
	return fault.Field(field, "%s", strings.ReplaceAll(fault.As(err).Message, "base_url", field)).WithCode("invalid_url")
}

// maxIssuer bounds an issuer and an audience, in bytes.
const maxIssuer = 512

// checkIssuer checks the issuer, which is compared byte for byte: what looks like
// another to a person, or could be read in two ways, is refused.
func checkIssuer(r *request, p *tenant.IdentityProvider) error {
	if !plainText(p.Issuer) || strings.Contains(p.Issuer, "#") {
		return fault.Field("issuer", `issuer must be 1 to %d visible ASCII characters without "#", as in the tokens' "iss".`, maxIssuer)
	}
	if p.JWKS != "" || p.DiscoveryURL != "" {
		return nil
	}
	if _, err := egress.CheckURL(p.Issuer, r.settings.AllowPrivate); err != nil {
		return urlField("issuer", err)
	}
	if _, err := egress.CheckURL(tenant.DiscoveryURL(p.Issuer), r.settings.AllowPrivate); err != nil {
		return urlField("issuer", err)
	}
	return nil
}

func plainText(s string) bool {
	return s != "" && len(s) <= maxIssuer && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

// maxAttributes bounds the attributes of a provider and what a rule matches.
const maxAttributes = 32

func checkAttributes(all []tenant.Attribute) ([]tenant.Attribute, error) {
	const field = "attribute_transformations"
	if len(all) > maxAttributes {
		return nil, fault.Field(field, "%s must have at most %d entries.", field, maxAttributes)
	}
	for i, a := range all {
		if !plainText(a.Name) {
			return nil, fault.Field(field, "An attribute must be 1 to %d visible ASCII characters.", maxIssuer)
		}
		if slices.ContainsFunc(all[:i], func(b tenant.Attribute) bool { return a.Name == b.Name }) {
			return nil, fault.Field(field, "There are two attributes of one name.")
		}
		if _, err := tenant.ParseExpression(a.Expression); err != nil || len(a.Expression) > maxIssuer {
			return nil, fault.Field(field, `An expression must be a path into the token, as in assertion.sub or assertion["kubernetes.io"].namespace.`)
		}
	}
	return all, nil
}

func (g *Gateway) listIdentityProviders(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	items, more, err := g.Registry.IdentityProviders(r.ctx, r.scope, p)
	return listed(p, items, more, err, toIdentity, identityID)
}

func (g *Gateway) getIdentityProvider(r *request) (any, error) {
	p, err := g.Registry.IdentityProvider(r.ctx, r.scope, r.param("provider"))
	return toIdentity(p), err
}

func (g *Gateway) createIdentityProvider(r *request) (any, error) {
	var b identityBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name    string
		missing bool
	}{{"name", b.Name == nil}, {"type", b.Type == nil}, {"issuer", b.Issuer == nil}} {
		if f.missing {
			return nil, fault.Field(f.name, "%s is required.", f.name)
		}
	}
	now := g.now()
	// The company's own audience is the only one it may have without asking.
	p := tenant.IdentityProvider{ID: openai.NewID("wip_"), Audience: r.scope.ID().Audience(), Enabled: true, CreatedAt: now, UpdatedAt: now}
	if err := b.apply(r, &p); err != nil {
		return nil, err
	}
	return toIdentity(p), g.Registry.CreateIdentityProvider(r.ctx, r.scope, p)
}

// updateIdentityProvider changes whose tokens are trusted, and with that who may
// act by the provider's rules: who changes it must hold what they grant.
func (g *Gateway) updateIdentityProvider(r *request) (any, error) {
	var b identityBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	p, err := g.Registry.IdentityProvider(r.ctx, r.scope, r.param("provider"))
	if err != nil {
		return nil, err
	}
	if err := b.apply(r, &p); err != nil {
		return nil, err
	}
	rules, _, err := g.Registry.FederationRules(r.ctx, r.scope, p.ID, "", openai.Page{})
	if err != nil {
		return nil, err
	}
	for i := range rules {
		if err := mayGrant(r, &rules[i]); err != nil {
			return nil, err
		}
	}
	p, err = g.Registry.UpdateIdentityProvider(r.ctx, r.scope, p)
	return toIdentity(p), err
}

func (g *Gateway) deleteIdentityProvider(r *request) (any, error) {
	id := r.param("provider")
	return deleted{id, "organization.workload_identity_provider.deleted", true}, g.Registry.DeleteIdentityProvider(r.ctx, r.scope, id)
}
