package tenant

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// IdentityProvider is an issuer of tokens that a company trusts to say who its
// workloads and users are. The issuer and the audience of a token choose exactly
// one of one company, and only its keys prove the token.
type IdentityProvider struct {
	ID          string
	Name        string
	Description string
	Issuer      string // as it stands in "iss", byte for byte
	Audience    string // as it stands in "aud": the company's own, or one the operator approved for it
	Enabled     bool
	// JWKS is the set of keys that was uploaded, as JSON; "" finds them at
	// DiscoveryURL, or where that is "" at the well-known path below the issuer.
	JWKS         string
	DiscoveryURL string
	Attributes   []Attribute
	CreatedAt    time.Time
	UpdatedAt    time.Time
	// Rules are in the order they were made. Only Company has them.
	Rules []*FederationRule
}

// Attribute gives a part of a token a name that rules can match.
type Attribute struct {
	Name       string `json:"attribute"`
	Expression string `json:"expression"` // see ParseExpression
}

// FederationRule says what a token of a provider whose attributes match may act
// as. Without an enabled rule that matches, a proved token opens nothing.
type FederationRule struct {
	ID               string
	ProviderID       string
	Name             string
	Description      string
	Matchers         map[string]any // text, true or false, or json.Number; all must match
	ProjectID        string
	ServiceAccountID string
	Scopes           []string // what it may do; nil: all that the account may
	Enabled          bool
	CreatedAt        time.Time
	UpdatedAt        time.Time
}

// grants is what the bearer of a token may do: what a key of the account may, or
// the scopes of the rule, in its project and nowhere else.
func (r *FederationRule) grants(k *Key) (g Grants) {
	if r.Scopes == nil {
		return keyGrants(k)
	}
	if p, unknown := PermissionsOf(r.Scopes); unknown == "" {
		g.Add(r.ProjectID, p)
	}
	return g
}

// ApprovedAudience is an audience, beside the company's own, that the operator
// lets a company use. It is one company's only.
type ApprovedAudience struct {
	ID        string
	Audience  string
	CreatedAt time.Time
}

// Identity is whose tokens a company trusts.
type Identity struct {
	Providers []*IdentityProvider // in the order they were made
	Audiences []string            // that the operator approved, beside the company's own
}

// audiencePrefix begins the audience that every company has from its beginning.
const audiencePrefix = "bulkhead:"

// Audience returns the company's own audience: "bulkhead:" and its locator.
func (id ID) Audience() string { return audiencePrefix + id.Locator() }

// IsOwnAudience reports whether an audience has the form of a company's own,
// which the operator approves for nobody.
func IsOwnAudience(audience string) bool {
	return len(audience) >= len(audiencePrefix) && strings.EqualFold(audience[:len(audiencePrefix)], audiencePrefix)
}

// Takes reports whether the company may have providers with that audience.
func (c *Company) Takes(audience string) bool {
	if audience == c.id.Audience() {
		return true
	}
	return c.Identity != nil && slices.Contains(c.Identity.Audiences, audience)
}

func (c *Company) identityProviders() []*IdentityProvider {
	if c.Identity == nil {
		return nil
	}
	return c.Identity.Providers
}

// provider returns the enabled provider that the issuer and the audience of a
// token choose; nil: none.
func (c *Company) provider(issuer, audience string) *IdentityProvider {
	if !c.Takes(audience) {
		return nil
	}
	for _, p := range c.identityProviders() {
		if p.Enabled && p.Issuer == issuer && p.Audience == audience {
			return p
		}
	}
	return nil
}

// rule returns the enabled rule with that id and its provider, which is enabled.
func (c *Company) rule(id string) (*IdentityProvider, *FederationRule) {
	for _, p := range c.identityProviders() {
		for _, r := range p.Rules {
			if r.ID == id && r.Enabled && p.Enabled && c.Takes(p.Audience) {
				return p, r
			}
		}
	}
	return nil, nil
}

// match returns the first enabled rule, of that service account unless it is "",
// that the claims match; nil: none. A claim that a rule names and the token has
// not is no match.
func (p *IdentityProvider) match(claims map[string]any, account string) *FederationRule {
	for _, r := range p.Rules {
		if r.Enabled && (account == "" || r.ServiceAccountID == account) && p.matches(r, claims) {
			return r
		}
	}
	return nil
}

func (p *IdentityProvider) matches(r *FederationRule, claims map[string]any) bool {
	if len(r.Matchers) == 0 {
		return false
	}
	for name, want := range r.Matchers {
		got, ok := p.attribute(name, claims)
		if !ok || !oneEquals(got, want) {
			return false
		}
	}
	return true
}

// attribute returns what a rule calls by that name: an attribute of the
// provider, or else the claim of the token.
func (p *IdentityProvider) attribute(name string, claims map[string]any) (any, bool) {
	for _, a := range p.Attributes {
		if a.Name == name {
			path, err := ParseExpression(a.Expression)
			if err != nil {
				return nil, false
			}
			return lookUp(claims, path)
		}
	}
	v, ok := claims[name]
	return v, ok
}

func lookUp(claims map[string]any, path []string) (v any, ok bool) {
	v = claims
	for _, name := range path {
		object, is := v.(map[string]any)
		if !is {
			return nil, false
		}
		if v, ok = object[name]; !ok {
			return nil, false
		}
	}
	return v, true
}

// oneEquals compares a claim with what a rule wants. A claim that is a list
// matches if one of its values does, as with groups.
func oneEquals(got, want any) bool {
	list, is := got.([]any)
	if !is {
		return equals(got, want)
	}
	for _, v := range list {
		if equals(v, want) {
			return true
		}
	}
	return false
}

func equals(got, want any) bool {
	switch want := want.(type) {
	case string:
		s, ok := got.(string)
		return ok && s == want
	case bool:
		b, ok := got.(bool)
		return ok && b == want
	case json.Number:
		n, ok := got.(json.Number)
		return ok && sameNumber(string(n), string(want))
	}
	return false
}

// sameNumber compares two numbers as JSON writes them. Whole numbers are compared
// as such: as floats, large ids that differ would be equal.
func sameNumber(a, b string) bool {
	if a == b {
		return true
	}
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	if errX == nil && errY == nil {
		return x == y
	}
	if !strings.ContainsAny(a, ".eE") && !strings.ContainsAny(b, ".eE") {
		return false
	}
	f, errF := strconv.ParseFloat(a, 64)
	g, errG := strconv.ParseFloat(b, 64)
	return errF == nil && errG == nil && f == g && f < 1<<53 && f > -1<<53
}

// revision tells one version of a rule and its provider from another: what was
// given out under one is void under the next.
func revision(p *IdentityProvider, r *FederationRule) (out [8]byte) {
	b := make([]byte, 0, 128)
	for _, s := range []string{p.ID, r.ID} {
		b = append(append(b, s...), 0)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(p.UpdatedAt.UnixMicro()))
	b = binary.BigEndian.AppendUint64(b, uint64(r.UpdatedAt.UnixMicro()))
	sum := sha256.Sum256(b)
	copy(out[:], sum[:])
	return out
}

// subjectName names an end user by the token's subject. A subject is unique with
// its issuer only: without it one provider of a company could name the users of
// another. An issuer holds no "#".
func subjectName(issuer, subject string) string { return issuer + "#" + subject }
