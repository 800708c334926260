package keystore

import (
	"regexp"
	"strings"

	"bulkhead/fault"
	"bulkhead/provider"
)

// Bounds of a credential, in bytes.
const (
	maxProvider    = 64
	maxSecret      = 4096 // keys have about 200, tokens of identity services up to about 2,500
	maxHeaderValue = 256
)

var (
	providerName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	// resourceName becomes part of a host, so it is labels of one and no more.
	resourceName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$`)
)

// check returns what is wrong with n, or n with its headers named as
// provider.CredentialHeaders names them.
func check(n NewCredential) (NewCredential, error) {
	secret := n.Secret.Reveal()
	switch {
	case !providerName.MatchString(n.Provider):
		return n, fault.Field("provider", "provider must match [a-z0-9][a-z0-9._-]{0,63}")
	case secret == "" && n.BaseURL == "" && !n.Keyless:
		return n, fault.Field("secret", "secret must not be empty")
	case len(secret) > maxSecret || !visible(secret) || strings.Contains(secret, " "):
		return n, fault.Field("secret", "secret must be at most %d bytes of visible ASCII without spaces", maxSecret)
	case n.Resource != "" && (!resourceName.MatchString(n.Resource) || strings.Contains(n.Resource, "..")):
		return n, fault.Field("resource", "resource must match [A-Za-z0-9._-]{1,64} and begin and end with a letter or digit")
	}
	named := make(map[string]string, len(n.Header))
	for name, value := range n.Header {
		known := headerName(name)
		switch _, twice := named[known]; {
		case known == "":
			return n, fault.Field("header", "header %.64q is not one of %s", name, strings.Join(provider.CredentialHeaders(), ", "))
		case twice:
			return n, fault.Field("header", "header %s is there twice", known)
		case value == "" || len(value) > maxHeaderValue || !visible(value) || strings.TrimSpace(value) != value:
			return n, fault.Field("header", "the value of header %s must be 1 to %d bytes of visible ASCII", known, maxHeaderValue)
		}
		named[known] = value
	}
	n.Header = nil
	if len(named) > 0 {
		n.Header = named
	}
	return n, nil
}

// headerName returns the header of that name in any case, or "".
func headerName(name string) string {
	for _, known := range provider.CredentialHeaders() {
		if strings.EqualFold(known, name) {
			return known
		}
	}
	return ""
}

// visible reports whether s has only spaces and visible ASCII: a line end would
// begin another header.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// redact returns what may be shown of a secret: the last four characters, which
// tell one key from another, and nothing of one so short that they would help
// to guess it.
func redact(secret string) string {
	if len(secret) < 20 {
		return "..."
	}
	return "..." + secret[len(secret)-4:]
}
