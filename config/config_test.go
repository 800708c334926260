package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// changed returns the default configuration after change.
func changed(change func(c *Config)) *Config {
	c := Default()
	change(&c)
	return &c
}

func TestCheckDefault(t *testing.T) {
	if err := changed(func(*Config) {}).Check(); err != nil {
		t.Fatal(err)
	}
}

// One wrong value gives one problem, at its key.
func TestCheck(t *testing.T) {
	f := func(key, message string, change func(c *Config)) {
		t.Helper()
		got := problemLines(t, changed(change).Check())
		if len(got) != 1 || !strings.HasPrefix(got[0], key+": ") || !strings.Contains(got[0], message) {
			t.Errorf("got %q, want one problem of %s with %q", got, key, message)
		}
	}
	file := write(t, "file", "")
	f("data", "must be a folder", func(c *Config) { c.Data = "" })
	f("data", "must be a folder", func(c *Config) { c.Data = file })
	f("master_key", "32 bytes", func(c *Config) { c.MasterKey = NewSecret("abcd") })
	f("demo", "auto or off", func(c *Config) { c.Demo = "on" })
	f("vault_addr", "must be set where", func(c *Config) { c.VaultToken = NewSecret("t") })
	f("vault_addr", "https://HOST:PORT", func(c *Config) { c.VaultAddr, c.VaultToken = "vault:8200", NewSecret("t") })
	f("vault_token", "not both ways", func(c *Config) { c.VaultAddr = "https://v:1" })
	f("vault_token", "not both ways", func(c *Config) {
		c.VaultAddr, c.VaultToken, c.VaultRoleID, c.VaultSecretID = "https://v:1", NewSecret("t"), "r", NewSecret("s")
	})
	f("vault_role_id", "together with", func(c *Config) { c.VaultAddr, c.VaultRoleID = "https://v:1", "r" })
	f("vault_addr", "vault_transit_key is", func(c *Config) { c.VaultTransitKey = "bulkhead" })
	f("vault_transit_mount", "is mounted", func(c *Config) {
		c.VaultAddr, c.VaultToken, c.VaultTransitKey, c.VaultTransitMount = "https://v:1", NewSecret("t"), "bulkhead", ""
	})
	f("vault_mount", "is mounted", func(c *Config) { c.VaultAddr, c.VaultToken, c.VaultMount = "https://v:1", NewSecret("t"), "" })
	const database = "must be postgres://"
	f("postgres_url", database, func(c *Config) { c.PostgresURL = NewSecret("mysql://u:p@h/d") })
	f("postgres_url", database, func(c *Config) { c.PostgresURL = NewSecret("postgres://h/d") })
	f("postgres_url", database, func(c *Config) { c.PostgresURL = NewSecret("postgres://u@h") })
	f("postgres_owner_url", database, func(c *Config) { c.PostgresURL, c.PostgresOwnerURL = NewSecret("postgres://u@h/d"), NewSecret("u@h/d") })
	f("postgres_url", "names the user", func(c *Config) { c.PostgresOwnerURL = NewSecret("postgres://u@h/d") })
	f("shutdown_delay", "0 to 10m", func(c *Config) { c.ShutdownDelay = time.Hour })
	f("shutdown_timeout", "0 or 1s to 1h", func(c *Config) { c.ShutdownTimeout = time.Millisecond })
	f("shutdown_timeout", "not -1s", func(c *Config) { c.ShutdownTimeout = -time.Second })
	f("max_body_bytes", "1KiB to 1GiB", func(c *Config) { c.MaxBodyBytes = 1023 })
	f("body_bytes_company", "max_body_bytes (20MiB)", func(c *Config) { c.BodyBytesCompany = 20*MiB - 1 })
	f("body_bytes_total", "body_bytes_company (64MiB)", func(c *Config) { c.BodyBytesTotal = 64*MiB - 1 })
	f("max_form_bytes", "1KiB to 8GiB", func(c *Config) { c.MaxFormBytes = 1023 })
	f("form_bytes_company", "max_form_bytes (100MiB)", func(c *Config) { c.FormBytesCompany = 100*MiB - 1 })
	f("form_bytes_total", "form_bytes_company (512MiB)", func(c *Config) { c.FormBytesTotal = 512*MiB - 1 })
	f("cors_origins", `"app.example.com" is none`, func(c *Config) { c.CORSOrigins = "https://a.example.com app.example.com" })
	f("trusted_proxies", `"10.0.0.1" is none`, func(c *Config) { c.TrustedProxies = "10.0.0.0/8 10.0.0.1" })
	f("cors_origins", "without a path", func(c *Config) { c.CORSOrigins = "https://a.example.com/" })
	f("limits.concurrent_total", "(1000)", func(c *Config) { c.Limits.ConcurrentTotal = 999 })
	f("upstream.total", "at least", func(c *Config) { c.Upstream.Total = 5*time.Minute - 1 })
	f("otel.endpoint", "http or https URL", func(c *Config) { c.OTel.Endpoint = "127.0.0.1:4318" })
	f("otel.headers", "name=value", func(c *Config) { c.OTel.Headers = NewSecret("a=b,c") })
	f("otel.headers", "name=value", func(c *Config) { c.OTel.Headers = NewSecret("a b=c") })
	f("otel.headers", "name=value", func(c *Config) { c.OTel.Headers = NewSecret("a=b%0d%0ax: y") })
	f("tls.key", "together", func(c *Config) { c.TLS.Cert = file })
	f("tls.cert", "together", func(c *Config) { c.TLS.Key = file })
	f("log.level", "debug, info, warn or error", func(c *Config) { c.Log.Level = "INFO" })
}

func TestCheckAddresses(t *testing.T) {
	f := func(listen, ops string, want ...string) {
		t.Helper()
		got := problemLines(t, changed(func(c *Config) { c.Listen, c.OpsListen = listen, ops }).Check())
		for i := range got {
			got[i], _, _ = strings.Cut(got[i], ":")
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q, %q: problems of %q, want %q", listen, ops, got, want)
		}
	}
	f("127.0.0.1:0", "127.0.0.1:0") // any free ports
	f(":8080", "[::1]:8081")
	f("gateway.example.com:443", "10.0.0.1:443")
	f("127.0.0.1:8080", "127.0.0.1:8080", "ops_listen")
	f("localhost:8080", "LOCALHOST:8080", "ops_listen")
	f(":8080", "127.0.0.1:8080", "ops_listen") // every interface has that one too
	f("127.0.0.1:8080", "0.0.0.0:8080", "ops_listen")
	f("[::]:8080", "127.0.0.1:8080", "ops_listen")
	f("", "8081", "listen", "ops_listen")
	f("127.0.0.1", "127.0.0.1:65536", "listen", "ops_listen")
	f("127.0.0.1:-1", "127.0.0.1:http", "listen", "ops_listen")
	f("http://127.0.0.1:8080", "a_b:1", "listen", "ops_listen")
	f("::1:8080", "-a:1", "listen", "ops_listen")
}

func TestCheckProviders(t *testing.T) {
	f := func(name, kind, url, want string) {
		t.Helper()
		got := problemLines(t, changed(func(c *Config) { c.Providers[name] = Provider{kind, url} }).Check())
		if want == "" && got != nil || want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], want+": ")) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f("a", "openai", "", "")
	f(strings.Repeat("a", 64), "custom", "http://10.0.0.1:8000/v1", "")
	f("0.a_b-c", "azure", "https://x.example.com", "")
	f("a", "vllm", "http://vllm_1:8000/v1/", "")
	f("a", "custom", "http://[::1]:8000", "")
	// names become a part of model names and of metrics
	f(strings.Repeat("a", 65), "openai", "", "providers."+strings.Repeat("a", 65))
	f("A", "openai", "", "providers.A")
	f("", "openai", "", `providers.""`)
	f("a/b", "openai", "", "providers.a/b")
	f("-a", "openai", "", "providers.-a")
	f("a\n", "openai", "", `providers."a\n"`)
	// test keys are let into the sandbox: it must stay one
	f("sandbox", "openai", "", "providers.sandbox")
	f("agent", "openai", "", "providers.agent")
	f("a", "", "", "providers.a.kind")
	f("a", "OpenAI", "", "providers.a.kind")
	f("a", "azure", "", "providers.a.base_url")
	f("a", "vllm", "", "providers.a.base_url")
	f("a", "custom", "", "providers.a.base_url")
	for _, url := range []string{
		"example.com/v1", "//example.com", "ftp://example.com", "https:///v1", "https:example.com", "https://", "/v1",
		"https://user@example.com", "https://user:p@example.com", "https://example.com?", "https://example.com?a=b",
		"https://example.com#", "https://example.com#a", "https://example.com:65536", "https://example.com:", "https://:80",
		"https://exa mple.com", "https://example.com\n", "https://-a.com", "https://a..com",
	} {
		f("a", "custom", url, "providers.a.base_url")
	}
}

func TestCheckTLS(t *testing.T) {
	cert, key := keyPair(t)
	_, other := keyPair(t)
	f := func(certFile, keyFile string, want ...string) {
		t.Helper()
		got := problemLines(t, changed(func(c *Config) { c.TLS = TLS{certFile, keyFile} }).Check())
		if len(got) != len(want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		for i := range got {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
	f(cert, key)
	f("", "")
	f(cert+"x", key+"x", "tls.cert: must be a file that can be read", "tls.key: must be a file that can be read")
	f(cert, other, "tls.cert: must be a PEM certificate")
	f(key, key, "tls.cert: must be a PEM certificate")
}

// keyPair writes a new certificate and its key.
func keyPair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
}

// No printer shows the value, wherever the Secret is.
func TestSecretPrints(t *testing.T) {
	const value = "hunter2"
	s := NewSecret(value)
	type deep struct{ inner struct{ s Secret } }
	var d deep
	d.inner.s = s
	c := changed(func(c *Config) { c.MasterKey, c.OTel.Headers = s, s })

	var out bytes.Buffer
	for _, verb := range "vsqxXdTtbcoUeEfFgGp" {
		for _, flag := range []string{"", "+", "#", "-20", " "} {
			format := "%" + flag + string(verb) + "\n"
			fmt.Fprintf(&out, format, s)
			fmt.Fprintf(&out, format, &s)
			fmt.Fprintf(&out, format, []Secret{s})
			fmt.Fprintf(&out, format, map[string]any{"k": s})
			fmt.Fprintf(&out, format, d) // unexported: fmt cannot call our methods
			fmt.Fprintf(&out, format, c)
		}
	}
	fmt.Fprintln(&out, s, c, s.String())
	for _, marshal := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
		for _, v := range []any{s, &s, c, d, map[string]Secret{"k": s}} {
			text, err := marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			out.Write(text)
		}
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "s", s, "p", &s, "c", c, "d", d, "g", slog.GroupValue(slog.Any("k", s)))
	}
	fmt.Fprintln(&out, fmt.Errorf("with %w %v", os.ErrExist, s))

	lower := strings.ToLower(out.String())
	for _, form := range []string{value, fmt.Sprintf("%x", value), fmt.Sprint([]byte(value)), base64.StdEncoding.EncodeToString([]byte(value))} {
		if strings.Contains(lower, strings.ToLower(form)) {
			t.Errorf("the output has the secret as %q", form)
		}
	}
	if got := fmt.Sprintf("%#v %x %s", s, s, Secret{}); got != "[secret] [secret] [secret]" {
		t.Errorf("got %q", got)
	}
}

func TestSecretEqual(t *testing.T) {
	if !NewSecret("a").Equal(NewSecret("a")) || NewSecret("a").Equal(NewSecret("b")) || !NewSecret("").Empty() || NewSecret("").Equal(NewSecret("a")) {
		t.Error("Equal or Empty is wrong")
	}
}

func TestMasterKeyBytes(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb, 0xff}, 16) // has + and / in base64
	f := func(text string, ok bool) {
		t.Helper()
		got := changed(func(c *Config) { c.MasterKey = NewSecret(text) }).MasterKeyBytes()
		if ok != bytes.Equal(got, raw) || !ok && got != nil {
			t.Errorf("%q: %x", text, got)
		}
	}
	f(fmt.Sprintf("%x", raw), true)
	f(fmt.Sprintf("%X", raw), true)
	f(base64.StdEncoding.EncodeToString(raw), true)
	f(base64.RawStdEncoding.EncodeToString(raw), true)
	f(base64.URLEncoding.EncodeToString(raw), true)
	f(base64.RawURLEncoding.EncodeToString(raw), true)
	f("", false)
	f(fmt.Sprintf("%x", raw[1:]), false)
	f(base64.StdEncoding.EncodeToString(append(raw, 1)), false)
	f(string(raw), false)
}

func TestRestart(t *testing.T) {
	f := func(want []string, change func(c *Config)) {
		t.Helper()
		old := changed(func(c *Config) { c.MasterKey = NewSecret("a") })
		c := changed(func(c *Config) { c.MasterKey = NewSecret("a") })
		change(c)
		if got := c.Restart(old); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(nil, func(*Config) {})
	f([]string{"master_key"}, func(c *Config) { c.MasterKey = NewSecret("b") })
	f([]string{"listen", "ops_listen", "data", "tls.cert"}, func(c *Config) { c.Listen, c.OpsListen, c.Data, c.TLS.Cert = "x", "x", "x", "x" })
	// what a reload applies is not named
	f(nil, func(c *Config) {
		c.Upstream.Idle, c.MaxBodyBytes, c.Log.Level = 5, MiB, "debug"
		c.Providers["a"] = Provider{Kind: "xai"}
	})
}

func TestWarnings(t *testing.T) {
	data := t.TempDir()
	f := func(change func(c *Config), want ...string) {
		t.Helper()
		got := changed(func(c *Config) { c.Data = data; change(c) }).Warnings()
		if len(got) != len(want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		for i := range got {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("got %q, want %q", got[i], want[i])
			}
		}
	}
	f(func(*Config) {})
	f(func(c *Config) { c.Listen, c.OpsListen = "[::1]:1", "localhost:2" })
	f(func(c *Config) { c.OpsListen = ":8081" }, "ops_listen (:8081)")
	f(func(c *Config) { c.Listen = "0.0.0.0:8080" }, "in the clear")
	f(func(c *Config) { c.Listen, c.TLS.Cert = "gateway:8080", "x" })
	f(func(c *Config) { c.Upstream.AllowPrivate = true })
	f(func(c *Config) { c.Upstream.AllowPrivate, c.Upstream.CompanyBaseURLs = true, true }, "allow_private")
	f(func(c *Config) {
		c.Providers = map[string]Provider{"b": {"custom", "http://10.0.0.1"}, "a": {"custom", "http://x"}, "c": {"custom", "http://127.0.0.2:1"}, "d": {"custom", "https://x"}}
	}, "providers.a.", "providers.b.")
	f(func(c *Config) { c.PostgresURL = NewSecret("postgres://u:p@h/d") }, "redis_url", "s3_url")
	f(func(c *Config) {
		c.PostgresURL, c.RedisURL = NewSecret("postgres://u:p@h/d"), NewSecret("redis://h:6379")
		c.S3URL = "https://s3.example/bucket"
	})
	f(func(c *Config) { c.S3URL = "http://s3.example/bucket" }, "files travel in the clear")
	f(func(c *Config) { c.S3URL = "http://127.0.0.1:7070/bucket" })
	f(func(c *Config) { c.OTel.Endpoint = "http://collector:4318" })
	f(func(c *Config) { c.OTel.Endpoint, c.OTel.Headers = "http://collector:4318", NewSecret("a=b") }, "otel.headers")
	if err := os.WriteFile(filepath.Join(data, "demo.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f(func(*Config) {})
	f(func(c *Config) { c.Listen, c.TLS.Cert = ":8080", "x" }, "demo.json")
}

func TestMakesDemo(t *testing.T) {
	f := func(listen, demo string, want bool) {
		t.Helper()
		if got := changed(func(c *Config) { c.Listen, c.Demo = listen, demo }).MakesDemo(); got != want {
			t.Errorf("%s, %s: %t", listen, demo, got)
		}
	}
	f("127.0.0.1:1", "auto", true)
	f("127.0.0.1:1", "off", false)
	f("localhost:1", "auto", true)
	f("[::1]:1", "auto", true)
	f(":1", "auto", false)
	f("0.0.0.0:1", "auto", false)
	f("192.168.0.1:1", "auto", false)
	f("localhost.example.com:1", "auto", false)
}

func TestSizeAndDuration(t *testing.T) {
	f := func(text string, want Size, back string) {
		t.Helper()
		got, ok := parseSize(text)
		if !ok || got != want || got.String() != back {
			t.Errorf("%q: %d %t %s", text, got, ok, got)
		}
	}
	f("0", 0, "0")
	f("1500", 1500, "1500")
	f("512B", 512, "512")
	f("1024", KiB, "1KiB")
	f("20MiB", 20*MiB, "20MiB")
	f("8589934591GiB", 8589934591*GiB, "8589934591GiB")
	for _, text := range []string{"", "B", "MiB", "-1", "1.5MiB", "1MB", "1 MiB", "1kib", "8589934592GiB", "9223372036854775808", "0x10", "1_000", "1iB", "1MiMiB"} {
		if got, ok := parseSize(text); ok {
			t.Errorf("%q is taken as %d", text, got)
		}
	}
	for text, d := range map[string]time.Duration{"0": 0, "5m": 5 * time.Minute, "1h": time.Hour, "1h1m": 61 * time.Minute, "24h": 24 * time.Hour, "10s": 10 * time.Second, "1m30s": 90 * time.Second, "1h0m10s": time.Hour + 10*time.Second} {
		if short(d) != text {
			t.Errorf("%s is shown as %s", text, short(d))
		}
	}
}

func TestLevel(t *testing.T) {
	for text, want := range map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError, "": slog.LevelInfo} {
		if got := (Log{Level: text}).SlogLevel(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// Two defaults share nothing that can be changed.
func TestDefaultIsFresh(t *testing.T) {
	a := Default()
	a.Providers["x"] = Provider{}
	if b := Default(); len(b.Providers) > 0 || reflect.DeepEqual(a, b) {
		t.Error("Default returned a map twice")
	}
}

// A name from outside stays on its line, whatever it is.
func TestShown(t *testing.T) {
	f := func(name, want string) {
		t.Helper()
		if got := shown(name); got != want {
			t.Errorf("%q is shown as %s", name, got)
		}
	}
	f("a.b_c-d", "a.b_c-d")
	f("/etc/bulkhead.yaml", "/etc/bulkhead.yaml")
	f("", `""`)
	f("a b", `"a b"`)
	f("a\n\x1b[0m\xff", `"a\n\x1b[0m\xff"`)
	f(strings.Repeat("a", 81), strings.Repeat("a", 80)+"…")
	f(strings.Repeat("é", 41)[1:], `"\xa9`+strings.Repeat("é", 39)+`…"`) // cut between letters
}
