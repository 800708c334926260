package provider

import (
	"slices"
	"strings"

	"bulkhead/egress"
	"bulkhead/fault"
)

// Target is one place a call may be sent to: a model of a vendor, for one
// company. The router makes it; it is valid for that company only.
type Target struct {
	Company  string  // id of the company the target was made for
	Provider string  // name in the configuration, or of the built-in row
	Vendor   *Vendor // the row of that name
	Model    string  // the upstream's own name of the model
	Weight   int     // share of the route's traffic; see router
	// OnDisconnect is what becomes of a call whose client leaves, as in
	// tenant.RouteTarget.
	OnDisconnect string
}

// Credential is one sealed record. Host, header and secret belong together and
// nobody sets one part of another's: a new base_url needs the secret again.
type Credential struct {
	ID       string
	Company  string // id of the company it belongs to
	Provider string // name of the provider it is for
	Version  int64  // counts the rotations
	Secret   Secret

	// BaseURL is an address the company chose, reached through egress only;
	// "" is the vendor's. It ends before /chat/completions.
	BaseURL string

	// Resource is the part of a vendor's host that is the company's own (Azure).
	// It matches [A-Za-z0-9._-]{1,64}, beginning and ending with a letter or digit.
	Resource string

	// Header are further headers of each call; CredentialHeaders lists the
	// names. Values are at most 256 bytes of printable ASCII.
	Header map[string]string
}

// CredentialHeaders returns the names a Credential's Header may have. They
// choose an account at the vendor, or name the caller to it (OpenRouter).
func CredentialHeaders() []string {
	return []string{"HTTP-Referer", "OpenAI-Organization", "OpenAI-Project", "X-Title"}
}

func credentialHeader(name string) bool {
	return slices.ContainsFunc(CredentialHeaders(), func(s string) bool { return strings.EqualFold(s, name) })
}

// maxHeaderValue bounds a value of Credential.Header and of the client's
// headers that are passed on, in bytes. OpenAI allows 512 for
// X-Client-Request-Id.
const maxHeaderValue = 512

// maxSecret bounds a secret, in bytes: keys have about 200, tokens of Azure's
// and Google's identity services up to about 2,500.
const maxSecret = 8192

// Check reports what is wrong with a credential for v, before it is sealed: a
// *fault.Error of kind Invalid with Param naming the field. A BaseURL is
// normalised in place.
func (v *Vendor) Check(c *Credential, allowPrivate bool) error {
	secret := c.Secret.Reveal()
	switch {
	case v.Kind == Sandbox:
		return fault.Field("provider", "the sandbox takes no credential")
	case secret == "" && v.NeedsSecret:
		return fault.Field("secret", "%s needs a secret", v.Name)
	case len(secret) > maxSecret || !printable(secret):
		return fault.Field("secret", "secret must be at most %d bytes of printable ASCII without spaces", maxSecret)
	case v.resource() && c.BaseURL == "" && c.Resource == "":
		return fault.Field("resource", "%s needs the name of your resource, or a base_url", v.Name)
	case c.Resource != "" && !v.resource():
		return fault.Field("resource", "%s has no resources", v.Name)
	case c.Resource != "" && !resourceName(c.Resource):
		return fault.Field("resource", "resource must match [A-Za-z0-9._-]{1,64} and begin and end with a letter or digit")
	case c.BaseURL == "" && v.BaseURL == "":
		return fault.Field("base_url", "%s needs a base_url", v.Name)
	}
	for name, value := range c.Header {
		if !credentialHeader(name) {
			return fault.Field("header", "header %.64q is not one of %s", name, strings.Join(CredentialHeaders(), ", "))
		}
		if !headerValue(value) {
			return fault.Field("header", "the value of header %s must be 1 to %d bytes of printable ASCII", name, maxHeaderValue)
		}
	}
	if c.BaseURL != "" {
		u, err := egress.CheckURL(c.BaseURL, allowPrivate)
		if err != nil {
			return err
		}
		c.BaseURL = u.String()
	}
	return nil
}

// resourceName reports whether s may become a label (or several) of a host.
func resourceName(s string) bool {
	if len(s) == 0 || len(s) > 64 || !alnum(s[0]) || !alnum(s[len(s)-1]) || strings.Contains(s, "..") {
		return false
	}
	for i := range len(s) {
		if !alnum(s[i]) && s[i] != '.' && s[i] != '_' && s[i] != '-' {
			return false
		}
	}
	return true
}

func alnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// printable reports whether s has nothing but printable ASCII without spaces.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// headerValue reports whether s may be sent as a header's value.
func headerValue(s string) bool {
	if len(s) == 0 || len(s) > maxHeaderValue || s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
