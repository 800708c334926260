package test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/tenant/tenanttest"
	"bulkhead/test/upstream"
)

// openAIAuth is where the SDK's workload_identity exchanges tokens. The address
// cannot be changed in its argument.
const openAIAuth = "auth.openai.com"

// TestIdentitySDK runs the SDK's workload identity against an issuer that serves
// its keys over https on loopback, and the gateway's exchange in the place of
// OpenAI's.
func TestIdentitySDK(t *testing.T) {
	interpreter(t, "identity.py")
	issuer := tenanttest.NewIssuer(t, (*httptest.Server).StartTLS)
	cert := certFor(t, openAIAuth)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	pemOf := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	if err := os.WriteFile(roots, append(pemOf(issuer.Server.Certificate().Raw), pemOf(cert.Certificate[0])...), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", roots)
	tokens := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jwks" {
			fmt.Fprint(rw, issuer.JWKS())
			return
		}
		q := r.URL.Query()
		claims := issuer.Claims(q.Get("aud"), q.Get("sub"))
		claims["ok"], claims["n"] = true, 7
		fmt.Fprint(rw, issuer.Sign("first", nil, claims))
	}))
	defer tokens.Close()

	up := upstream.New(t)
	g := startGateway(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\nupstream: {allow_private: true}\n")
	g.setCredential(t, g.Demo, "up", upstreamSecret)
	gatewayURL, err := url.Parse(g.URL)
	if err != nil {
		t.Fatal(err)
	}
	var exchanges atomic.Int64
	auth := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		exchanges.Add(1)
		r.SetURL(gatewayURL)
		r.Out.URL.Path = "/v1" + r.In.URL.Path // /oauth/token
	}})
	auth.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	auth.StartTLS()
	defer auth.Close()
	counted := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, exchanges.Load()) }))
	defer counted.Close()
	proxy := httptest.NewServer(connectTo(auth.Listener.Addr().String()))
	defer proxy.Close()

	runScript(t, g, g.Demo, "identity.py", "UPSTREAM_URL="+up.URL(), "UPSTREAM_SECRET="+upstreamSecret, "ISSUER="+issuer.Name,
		"TOKENS_URL="+tokens.URL, "EXCHANGES_URL="+counted.URL, "HTTPS_PROXY="+proxy.URL)
	nothingLeaked(t, g, g.Demo)
	for _, where := range [][]byte{g.log(t), ask(t, http.MethodGet, g.OpsURL+"/metrics", "", nil).body} {
		for _, secret := range []string{"eyJ", "sk-bh-tmp-"} { // how a token and a key for one begin
			if bytes.Contains(where, []byte(secret)) {
				t.Errorf("something of a token (%s) is in the log or the metrics", secret)
			}
		}
	}
}

// TestIdentityNodeSDK is the same for the SDK for Node, whose exchange its own fetch
// brings to the gateway, with the keys of the issuer uploaded.
func TestIdentityNodeSDK(t *testing.T) {
	interpreter(t, "identity.mjs")
	issuer := tenanttest.NewIssuer(t, (*httptest.Server).Start)
	tokens := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jwks" {
			fmt.Fprint(rw, issuer.JWKS())
			return
		}
		fmt.Fprint(rw, issuer.Token(r.URL.Query().Get("aud"), r.URL.Query().Get("sub")))
	}))
	defer tokens.Close()
	up := upstream.New(t)
	g := startGateway(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	g.setCredential(t, g.Demo, "up", upstreamSecret)
	runScript(t, g, g.Demo, "identity.mjs", "ISSUER="+issuer.Name, "TOKENS_URL="+tokens.URL)
	nothingLeaked(t, g, g.Demo)
}

// certFor is a certificate of its own for a name.
func certFor(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// connectTo is a proxy that connects to openAIAuth at that address, and to nothing
// else.
func connectTo(address string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != openAIAuth+":443" {
			http.Error(rw, "no", http.StatusForbidden)
			return
		}
		there, err := net.Dial("tcp", address)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		here, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			there.Close()
			return
		}
		fmt.Fprint(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(there, here); there.Close() }()
		go func() { _, _ = io.Copy(here, there); here.Close() }()
	})
}
