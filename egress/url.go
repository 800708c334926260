package egress

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"bulkhead/fault"
)

// MaxURL is the longest address CheckURL takes, in bytes.
const MaxURL = 1024

// CheckURL checks the base URL a company wants to set and returns it
// normalised: lower-case scheme and host, no default port, no trailing slash.
// Every refusal is a fault of kind Invalid whose text may be shown.
//
// Allowed is https with a host name or a public IP address, port 443 or 1024
// and up: the ports below are other services' (mail, databases' admin, …) and
// no model server stands there, those above are where self-hosted ones do.
// User info, query, fragment, escapes and dot segments in the path are refused.
//
// allowPrivate is for laboratories: http, private addresses and every port too.
//
// The check knows nothing of what a name resolves to; the dialer of
// NewTransport looks at that, each time.
func CheckURL(raw string, allowPrivate bool) (*url.URL, error) {
	if raw == "" || len(raw) > MaxURL {
		return nil, refuse("must have 1 to %d bytes", MaxURL)
	}
	for i := range len(raw) {
		if c := raw[i]; !alnum(c) && strings.IndexByte("-._~:/[]+=@?#", c) < 0 {
			return nil, refuse("has a character that is not allowed at byte %d", i)
		}
	}
	if strings.ContainsAny(raw, "?#") {
		return nil, refuse("must not have a query or a fragment")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, refuse("is not a URL")
	}
	switch {
	case u.Scheme != "https" && !(u.Scheme == "http" && allowPrivate):
		return nil, refuse("must start with https://")
	case u.Opaque != "" || u.Host == "":
		return nil, refuse("must have a host")
	case u.User != nil:
		return nil, refuse("must not have a user name or password")
	}
	host, err := checkHost(u, allowPrivate)
	if err != nil {
		return nil, err
	}
	path := strings.TrimRight(u.Path, "/")
	for seg := range strings.SplitSeq(path, "/") {
		if seg == "." || seg == ".." {
			return nil, refuse("must not have . or .. in its path")
		}
	}
	if strings.Contains(path, "//") {
		return nil, refuse("must not have an empty part in its path")
	}
	return &url.URL{Scheme: u.Scheme, Host: host, Path: path}, nil
}

// checkHost returns u's host and port, normalised.
func checkHost(u *url.URL, allowPrivate bool) (string, error) {
	name := strings.ToLower(u.Hostname())
	if a, err := netip.ParseAddr(name); err == nil {
		if !allowPrivate && !Public(a) {
			return "", refuse("must not be a private address")
		}
		if a.Zone() != "" {
			return "", refuse("must not have a zone in its address")
		}
		if name = a.Unmap().String(); a.Unmap().Is6() {
			name = "[" + name + "]"
		}
	} else if err := checkName(name, allowPrivate); err != nil {
		return "", err
	}

	port := u.Port()
	if port == "" {
		if strings.HasSuffix(u.Host, ":") {
			return "", refuse("has an empty port")
		}
		return name, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '0' {
		return "", refuse("has a bad port")
	}
	if !portAllowed(uint16(n), allowPrivate) {
		return "", refuse("must use port 443 or a port from 1024 up")
	}
	if u.Scheme == "https" && n == 443 || u.Scheme == "http" && n == 80 {
		return name, nil
	}
	return name + ":" + port, nil
}

// checkName checks a host name: RFC 1123 labels, at least two of them, and a
// last one that is not a number. Without the last rule 127.1, 0x7f.1 and
// 2130706433 would pass as names, and some resolvers read them as addresses.
func checkName(name string, allowPrivate bool) error {
	if len(name) == 0 || len(name) > 253 {
		return refuse("has a bad host name")
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return refuse("has a bad host name")
		}
		for i := range len(l) {
			c := l[i]
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' && allowPrivate) {
				return refuse("has a bad host name")
			}
		}
	}
	last := labels[len(labels)-1]
	if '0' <= last[0] && last[0] <= '9' {
		return refuse("has a bad host name")
	}
	if allowPrivate {
		return nil
	}
	if len(labels) < 2 || in6761(last) {
		return refuse("must be a public host name")
	}
	return nil
}

// in6761 reports whether a top-level label never names a public host (RFC 6761
// and 6762, and the two that are in private use by custom).
func in6761(tld string) bool {
	switch tld {
	case "localhost", "local", "internal", "invalid", "test", "example", "onion", "arpa":
		return true
	}
	return false
}

func alnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func portAllowed(p uint16, allowPrivate bool) bool {
	return p == 443 || p >= 1024 || allowPrivate && p != 0
}

func refuse(format string, a ...any) *fault.Error {
	return fault.Field("base_url", "base_url "+format, a...).WithCode("invalid_base_url")
}
