package web

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"bulkhead/tenant"
)

// TestAllowedIPs: a key with a list of networks works from there only, for calls
// and for management, and no header makes up another address.
func TestAllowedIPs(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	f := func(trusted []netip.Prefix, allowed string, status int, forwarded ...string) {
		t.Helper()
		l := newLab(t, labOptions{settings: func(s *Settings) { s.TrustedProxies = trusted }})
		key, s := l.company("acme", tenant.KeyLive, nil)
		s.Key().Rules.AllowedIPs = []netip.Prefix{netip.MustParsePrefix(allowed)}
		var header []string
		for _, v := range forwarded {
			header = append(header, "X-Forwarded-For", v)
		}
		for path, body := range map[string]string{"/v1/chat/completions": chatBody("up/ok", ""), "/v1/models": ""} {
			method := http.MethodGet
			if body != "" {
				method = http.MethodPost
			}
			a := l.do(method, key, path, body, header...)
			if a.status != status || status == http.StatusForbidden && a.envelope(t).Code != "ip_not_allowed" {
				t.Errorf("%s from %v, allowed %s: %s", path, forwarded, allowed, a)
			}
		}
		if n := len(l.up.Requests()); status != http.StatusOK && n != 0 {
			t.Errorf("%d requests reached the provider", n)
		}
	}
	const ok, no = http.StatusOK, http.StatusForbidden
	f(nil, "127.0.0.1/32", ok)
	f(nil, "127.0.0.1/32", ok, "203.0.113.7")   // nobody is believed
	f(nil, "203.0.113.0/24", no, "203.0.113.7") // not even then
	f(proxies, "203.0.113.0/24", ok, "203.0.113.7")
	f(proxies, "203.0.113.0/24", ok, "198.51.100.1, 203.0.113.7, 10.1.1.1")
	f(proxies, "203.0.113.0/24", no, "203.0.113.7, 198.51.100.1") // what stands in front is the client's own word
	f(proxies, "203.0.113.0/24", no, "203.0.113.7", "198.51.100.1")
	f(proxies, "203.0.113.0/24", no, "203.0.113.7, nonsense")
	f(proxies, "203.0.113.0/24", no)
	f(proxies, "2001:db8::/32", ok, "2001:db8::1")
	f(proxies, "203.0.113.0/24", ok, "::ffff:203.0.113.7")
}

// A key is noted as used once a minute, whatever it is used for.
func TestKeyUse(t *testing.T) {
	l := newLab(t, labOptions{})
	key, s := l.company("acme", tenant.KeyLive, nil)
	for range 3 {
		if a := l.chat(key, "up/ok", ""); a.status != 200 {
			t.Fatalf("%s", a)
		}
	}
	used := l.world.Directory.Used()
	var mine []tenant.KeyUse
	for _, u := range used {
		if u.Scope.KeyID() == s.KeyID() {
			mine = append(mine, u)
		}
	}
	if len(mine) != 1 || time.Since(mine[0].At) > time.Minute {
		t.Errorf("noted %d times", len(mine))
	}
	if again := l.world.Directory.Used(); len(again) != 0 {
		t.Errorf("told twice: %d", len(again))
	}
}

func TestParseNetworks(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		got, err := parseNetworks("allowed_ips", []string{text})
		if (err == nil) != (want != "") || err == nil && got[0].String() != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	f("203.0.113.7", "203.0.113.7/32")
	f("203.0.113.7/24", "203.0.113.0/24")
	f("2001:db8::1", "2001:db8::1/128")
	f("2001:DB8::/32", "2001:db8::/32")
	f("0.0.0.0/0", "0.0.0.0/0")
	f("", "")
	f("203.0.113.7/33", "")
	f("203.0.113", "")
	f("fe80::1%eth0", "")
	f("::ffff:203.0.113.7", "")
	f("example.com", "")
	if _, err := parseNetworks("allowed_ips", make([]string, tenant.MaxAllowedIPs+1)); err == nil {
		t.Error("too many are taken")
	}
}

// What is not served is refused by name, and anything else is no path.
func TestNotServed(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	f := func(path, code string) {
		t.Helper()
		if a := l.do(http.MethodPost, key, path, "{}"); a.status != http.StatusNotFound || a.envelope(t).Code != code {
			t.Errorf("%s: %s", path, a)
		}
	}
	f("/v1/batches", "unsupported_api")
	f("/v1/batches/batch_1/cancel", "unsupported_api")
	f("/v1/fine_tuning/jobs", "unsupported_api")
	f("/v1/threads", "unsupported_api")
	f("/v1/batch", "unknown_url")
	f("/batches", "unknown_url")
	if len(l.up.Requests()) != 0 {
		t.Error("something was forwarded")
	}
}
