package egress

import (
	"net/netip"
	"strings"
	"testing"

	"bulkhead/fault"
)

func TestCheckURL(t *testing.T) {
	ok := func(lab bool, in, want string) {
		t.Helper()
		u, err := CheckURL(in, lab)
		if err != nil {
			t.Errorf("CheckURL(%q): %v", in, err)
		} else if u.String() != want {
			t.Errorf("CheckURL(%q) = %s, want %s", in, u, want)
		}
	}
	bad := func(lab bool, in ...string) {
		t.Helper()
		for _, s := range in {
			if u, err := CheckURL(s, lab); err == nil {
				t.Errorf("CheckURL(%q, %v) = %s", s, lab, u)
			} else if !fault.Is(err, fault.Invalid) || fault.As(err).Param != "base_url" {
				t.Errorf("CheckURL(%q): %#v", s, err)
			}
		}
	}
	ok(false, "https://models.company.com/v1", "https://models.company.com/v1")
	ok(false, "HTTPS://Models.Company.COM:443/v1/", "https://models.company.com/v1")
	ok(false, "https://models.company.com:8443//", "https://models.company.com:8443")
	ok(false, "https://8.8.8.8/v1", "https://8.8.8.8/v1")
	ok(false, "https://[2606:4700::1]:8443/v1", "https://[2606:4700::1]:8443/v1")
	ok(false, "https://xn--bcher-kva.com", "https://xn--bcher-kva.com")
	ok(false, "https://a.b-c.io/a/b_c/v1.2~x", "https://a.b-c.io/a/b_c/v1.2~x")

	bad(false, "", " ", "x", "https://", "https:///v1", "https:a.com", "//a.com", "/v1", strings.Repeat("a", MaxURL+1))
	bad(false, "http://a.com", "ftp://a.com", "file:///etc/passwd", "gopher://a.com", "unix:///run/x", "javascript:1")
	bad(false, "https://u:p@a.com", "https://u@a.com", "https://@a.com", "https://a.com@127.0.0.1", "https://a.com#@b.com")
	bad(false, "https://a.com?x=1", "https://a.com/v1?", "https://a.com/#f", "https://a.com/v1#")
	bad(false, "https://a.com:80", "https://a.com:22", "https://a.com:0", "https://a.com:", "https://a.com:65536", "https://a.com:0443", "https://a.com:+443", "https://a.com:x")
	bad(false, "https://127.0.0.1", "https://10.1.2.3", "https://169.254.169.254/latest", "https://[::1]", "https://[::ffff:10.0.0.1]", "https://[fe80::1%25eth0]", "https://[fd00::1]:8443", "https://[64:ff9b::a9fe:a9fe]")
	bad(false, "https://127.1", "https://0x7f.1", "https://2130706433", "https://017700000001", "https://1.2.3.4.5", "https://1.2.3.4.")
	bad(false, "https://localhost", "https://a.localhost", "https://box", "https://x.local", "https://metadata.google.internal", "https://a.test", "https://1.0.0.127.in-addr.arpa")
	bad(false, "https://-a.com", "https://a-.com", "https://a..com", "https://.a.com", "https://a.com.", "https://a_b.com", "https://"+strings.Repeat("a", 64)+".com")
	bad(false, "https://a.com/../x", "https://a.com/./x", "https://a.com/a//b", "https://a.com/%2e%2e/x", "https://a.com/\\x", "https://a.com/\x00", "https://a.com/ä", "https://ä.com", "https://a.com/\r\nHost: b", "https://a.com/{resource}", "https://%61.com")

	ok(true, "http://127.0.0.1:11434/v1/", "http://127.0.0.1:11434/v1")
	ok(true, "http://localhost:80", "http://localhost")
	ok(true, "http://vllm:8000/v1", "http://vllm:8000/v1")
	ok(true, "https://[::1]:22", "https://[::1]:22")
	ok(true, "https://[::ffff:10.0.0.1]", "https://10.0.0.1")
	bad(true, "http://[fe80::1%25eth0]", "ftp://a.com", "http://u:p@a.com", "http://a.com:0", "http://127.1")
}

// FuzzCheckURL: what is let through is in normal form, and whatever reads it
// sees a public host and an allowed port.
func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{"https://a.com/v1", "https://127.0.0.1", "https://[::1]:8443/x", "http://a", "https://a.com:8443/a/../b", "https://u@a.com", "https://0x7f.1", "https://[64:ff9b::1.2.3.4]"} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, lab bool) {
		u, err := CheckURL(s, lab)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		again, err := CheckURL(u.String(), lab)
		if err != nil || *again != *u {
			t.Fatalf("%q: %s is not normal: %v", s, u, err)
		}
		if u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" || u.RawPath != "" || strings.HasSuffix(u.Path, "/") {
			t.Fatalf("%q: %#v", s, u)
		}
		if lab {
			return
		}
		if a, err := netip.ParseAddr(u.Hostname()); u.Scheme != "https" || err == nil && !Public(a) {
			t.Fatalf("%q: %s", s, u)
		}
	})
}
