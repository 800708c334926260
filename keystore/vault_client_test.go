package keystore

import "testing"

// http.ProxyFromEnvironment leaves out loopback, so that a test against a real
// server would not see it.
func TestNoProxy(t *testing.T) {
	way, err := newTransport("")
	if err != nil || way.(bounded).Proxy != nil {
		t.Fatalf("a proxy may be used, or %v", err)
	}
}
