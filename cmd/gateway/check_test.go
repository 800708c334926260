package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/config"
	"bulkhead/store"
)

// A check that does not end holds up neither the others nor the answer.
func TestCheckAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		defer close(free)
		begin := time.Now()
		found := checkAll(t.Context(), []check{
			{"deaf", "here", func(context.Context) []finding { <-free; return nil }},
			{"slow", "there", func(ctx context.Context) []finding { <-ctx.Done(); return one(failed, "%s", ctx.Err()) }},
			{"quick", "", func(context.Context) []finding {
				return []finding{{State: good, Detail: " two\n\tlines "}, {What: "more", State: warning, Detail: "x"}}
			}},
		})
		if took := time.Since(begin); took > checkTimeout+2*time.Second {
			t.Errorf("took %s", took)
		}
		want := []finding{
			{"deaf", "here", "", failed, "no answer within 10s"},
			{"slow", "there", "", failed, "context deadline exceeded"},
			{"quick", "", "", good, "two lines"},
			{"more", "", "", warning, "x"},
		}
		if len(found) != len(want) {
			t.Fatalf("found %+v", found)
		}
		for i := range want {
			if found[i] != want[i] {
				t.Errorf("found %+v, want %+v", found[i], want[i])
			}
		}
	})
}

func TestCheckClock(t *testing.T) {
	f := func(ahead time.Duration, want state, text string) {
		t.Helper()
		if got := (checker{}).clock(store.Looked{Ahead: ahead}); got.State != want || !strings.Contains(got.Detail, text) {
			t.Errorf("%s: %+v", ahead, got)
		}
	}
	f(0, good, "less than 2 s")
	f(-1900*time.Millisecond, good, "less than 2 s")
	f(2100*time.Millisecond, warning, "2.1s before")
	f(-time.Hour, warning, "1h0m0s behind")
}

func TestOlderBao(t *testing.T) {
	f := func(version string, want bool) {
		t.Helper()
		if olderBao(version) != want {
			t.Errorf("%q: %t", version, !want)
		}
	}
	f("2.7.2", false)
	f("2.7.1", true)
	f("2.7.10", false)
	f("2.10.0", false)
	f("2.6.9-beta1", true)
	f("2.0.0", true)
	f("3.0.0", false)
	f("1.21.0", false) // HashiCorp's
	f("", false)
	f("unknown", false)
}

// No part of an address that could be a secret is shown.
func TestCheckWhere(t *testing.T) {
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(withoutPassword(config.NewSecret("postgres://u:s3cret@host:5432/db?sslmode=disable&password=s3cret")), "u@host:5432/db")
	f(withoutPassword(config.NewSecret("postgres://u@host/db")), "u@host/db")
	f(withoutPassword(config.NewSecret("postgres://%zz")), "")
	f(redacted("https://u:s3cret@vault:8200"), "https://vault:8200")
	f(redacted("http://[::1]:8200"), "http://[::1]:8200")
}

func TestCheckTLS(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Default()
	cfg.TLS.Cert, cfg.TLS.Key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	f := func(from, to time.Duration, want state, text string) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to)}
		cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write := func(path, kind string, b []byte) {
			if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(cfg.TLS.Cert, "CERTIFICATE", cert)
		write(cfg.TLS.Key, "PRIVATE KEY", private)
		if got := (checker{&cfg}).tls(t.Context()); len(got) != 1 || got[0].State != want || !strings.Contains(got[0].Detail, text) {
			t.Errorf("%+v, want %s %q", got, want, text)
		}
	}
	const day = 24 * time.Hour
	f(-day, 30*day, good, "good until")
	f(-day, 10*day, warning, "ends on")
	f(-2*day, -day, failed, "ended on")
	f(day, 30*day, failed, "only")
}

func TestPrintFindings(t *testing.T) {
	var out bytes.Buffer
	found := []finding{{"postgres", "u@h/d", "15.1", good, "it is well"}, {"configuration", "", "", warning, "x"}}
	if err := printFindings(&out, found, false); err != nil {
		t.Fatal(err)
	}
	const want = "WHAT           WHERE  VERSION  STATE    DETAIL\n" +
		"postgres       u@h/d  15.1     ok       it is well\n" +
		"configuration  -      -        warning  x\n"
	if out.String() != want {
		t.Errorf("printed\n%s", out.String())
	}
}
