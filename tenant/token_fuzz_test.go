package tenant

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzToken: whatever is read keeps to the bounds, and nothing panics.
func FuzzToken(f *testing.F) {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	claims := `{"iss":"https://i","aud":["a","b"],"sub":"s","exp":2000,"iat":1000,"nbf":1}`
	f.Add([]byte(part(`{"alg":"ES256","kid":"k"}`) + "." + part(claims) + ".eA"))
	f.Add([]byte(part(`{"alg":"none","kid":"k"}`) + "." + part(claims) + "."))
	f.Add([]byte("..."))
	f.Add([]byte(strings.Repeat("A", 100) + "." + strings.Repeat("B", 100) + ".C"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tok, err := parseToken(b)
		if err != nil {
			return
		}
		if len(b) > maxToken || algorithms[tok.alg] == nil || tok.kid == "" || tok.subject == "" || tok.issuer == "" || len(tok.audience) == 0 || len(tok.signature) == 0 {
			t.Fatalf("read as %+v", tok)
		}
		if life := tok.exp.Sub(tok.iat); life <= 0 || life > maxLife {
			t.Fatalf("a life of %s", life)
		}
		if !strings.HasPrefix(string(b), tok.signed+".") || strings.Count(tok.signed, ".") != 1 {
			t.Fatalf("signed %q", tok.signed)
		}
		_ = tok.checkTime(time.Unix(1500, 0))
	})
}

// FuzzReadObject: what is read is what encoding/json reads, where that is strict
// enough, and never more.
func FuzzReadObject(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, `{"a":{"b":[1,"x",null,true]}}`, `{"a":1,"a":2}`, `{"a":"\ud800"}`, `{}{}`, `[]`, `{"a":01}`, `{"a":1e999}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readObject(b, 64)
		if err != nil {
			return
		}
		if !utf8.Valid(b) || !json.Valid(b) {
			t.Fatalf("%q is no JSON", b)
		}
		var want map[string]any
		d := json.NewDecoder(strings.NewReader(string(b)))
		d.UseNumber()
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		x, errX := json.Marshal(got)
		y, errY := json.Marshal(want)
		if errX != nil || errY != nil || string(x) != string(y) {
			t.Fatalf("%q is read as %s, want %s", b, x, y)
		}
	})
}

// FuzzJWKS: keys that are read can be used, whatever they are.
func FuzzJWKS(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"a","n":"` + strings.Repeat("w", 342) + `","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseJWKS(b, false)
		if err != nil {
			return
		}
		for i := range keys {
			for alg, method := range algorithms {
				if keys[i].proves(alg) && method.Verify("text", []byte("signature"), keys[i].key) == nil {
					t.Fatal("nonsense is proved")
				}
			}
		}
	})
}

// FuzzDiscovery: an address is only ever taken from a description of the issuer.
func FuzzDiscovery(f *testing.F) {
	f.Add([]byte(`{"issuer":"https://i","jwks_uri":"https://i/keys"}`))
	f.Add([]byte(`{"issuer":"https://j","jwks_uri":"https://i/keys"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		address, err := jwksURI(b, "https://i")
		if err == nil && (address == "" || !strings.Contains(string(b), "issuer") && !strings.Contains(string(b), `\u`)) {
			t.Fatalf("%q gives %q", b, address)
		}
	})
}

// FuzzExchanged: what is read of a key that was given out keeps to its form.
func FuzzExchanged(f *testing.F) {
	f.Add([]byte("sk-bh-tmp-0123456789-" + base64.RawURLEncoding.EncodeToString(append([]byte{1}, make([]byte, 80)...))))
	f.Add([]byte("sk-bh-tmp-"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !isExchanged(b) {
			return
		}
		if g, ok := parseExchanged(b); ok && (len(g.sum) != 32 || len(g.text) <= exchangedFixed || !validLocator(g.locator)) {
			t.Fatalf("read as %+v", g)
		}
	})
}
