package provider

import (
	"strings"
	"testing"

	"bulkhead/fault"
	"bulkhead/openai"
)

func TestBuiltin(t *testing.T) {
	m := Builtin()
	for name, v := range m {
		if v.Name != name || v.Kind != name || len(v.Endpoints) == 0 || !v.Serves(openai.Chat) {
			t.Errorf("%s: %+v", name, v)
		}
		if strings.HasSuffix(v.BaseURL, "/") || v.NeedsBaseURL != (v.BaseURL == "") {
			t.Errorf("%s: base URL %q", name, v.BaseURL)
		}
		if !v.Local && !v.NeedsBaseURL && !strings.HasPrefix(v.BaseURL, "https://") {
			t.Errorf("%s is not reached by https", name)
		}
		if !v.NeedsBaseURL && !v.resource() && len(v.urls) != len(v.Endpoints) {
			t.Errorf("%s: addresses are not prepared", name)
		}
	}
	f := func(name string, e openai.Endpoint, want string) {
		t.Helper()
		if got := m[name].urls[e].String(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	f("openai", openai.Chat, "https://api.openai.com/v1/chat/completions")
	f("perplexity", openai.Chat, "https://api.perplexity.ai/chat/completions")
	f("gemini", openai.Embeddings, "https://generativelanguage.googleapis.com/v1beta/openai/embeddings")
	m["openai"].BaseURL = "changed"
	if Builtin()["openai"].BaseURL == "changed" {
		t.Error("Builtin gives the same row twice")
	}
}

func TestVendors(t *testing.T) {
	ok := func(name string, o Override, http bool, base string) {
		t.Helper()
		m, errs := Vendors(map[string]Override{name: o}, http)
		if len(errs) > 0 {
			t.Errorf("%s %+v: %v", name, o, errs)
		} else if v := m[name]; v.BaseURL != base || v.Name != name || o.BaseURL != "" && v.BuiltinURL {
			t.Errorf("%s %+v: %+v", name, o, v)
		}
	}
	ok("openai", Override{}, false, "https://api.openai.com/v1")
	ok("openai", Override{BaseURL: "https://proxy.corp.example.com/openai/v1/"}, false, "https://proxy.corp.example.com/openai/v1")
	ok("openai", Override{Kind: "openai", BaseURL: "http://127.0.0.1:9/v1"}, false, "http://127.0.0.1:9/v1")
	ok("second-openai", Override{Kind: "openai"}, false, "https://api.openai.com/v1")
	ok("lab", Override{Kind: "vllm", BaseURL: "http://gpu1:8000/v1"}, true, "http://gpu1:8000/v1")
	ok("lab", Override{Kind: "vllm", BaseURL: "https://10.0.0.7:8000"}, false, "https://10.0.0.7:8000")
	ok("sov", Override{Kind: "azure", BaseURL: "https://{resource}.openai.azure.us/openai/v1"}, false, "https://{resource}.openai.azure.us/openai/v1")
	ok("vllm", Override{}, false, "") // each credential brings its own

	m, errs := Vendors(map[string]Override{
		"Bad Name": {Kind: "openai"}, "agent": {Kind: "openai"}, "a/b": {Kind: "openai"}, "nokind": {}, "what": {Kind: "nope"},
		"groq": {Kind: "openai"}, "noaddr": {Kind: "custom"}, "clear": {Kind: "vllm", BaseURL: "http://gpu1:8000"},
		"odd": {Kind: "openai", BaseURL: "ftp://x"}, "sandbox": {BaseURL: "https://a.com"}, "box": {Kind: "sandbox"},
		"mark": {Kind: "openai", BaseURL: "https://{resource}.a.com"}, "fine": {Kind: "groq"}, "-x": {Kind: "openai"},
		"q": {Kind: "custom", BaseURL: "http://127.evil.com"},
	}, false)
	if len(errs) != 14 {
		t.Errorf("%d problems: %v", len(errs), errs)
	}
	if m["fine"] == nil || m["fine"].Name != "fine" || m["fine"].Kind != "groq" {
		t.Errorf("fine: %+v", m["fine"])
	}
}

func TestCheckCredential(t *testing.T) {
	m := Builtin()
	f := func(vendor string, c Credential, param string) {
		t.Helper()
		err := m[vendor].Check(&c, false)
		if param == "" {
			if err != nil {
				t.Errorf("%s %+v: %v", vendor, c, err)
			}
			return
		}
		if !fault.Is(err, fault.Invalid) || fault.As(err).Param != param {
			t.Errorf("%s %+v: %v, want %s", vendor, c, err, param)
		}
		if err != nil && leaks(err.Error()) {
			t.Errorf("the error has the secret: %v", err)
		}
	}
	s := NewSecret(canary)
	f("openai", Credential{Secret: s}, "")
	f("openai", Credential{Secret: s, Header: map[string]string{"OpenAI-Organization": "org-1"}}, "")
	f("openai", Credential{Secret: s, BaseURL: "https://models.company.com"}, "")
	f("azure", Credential{Secret: s, Resource: "my-res.1"}, "")
	f("azure", Credential{Secret: s, BaseURL: "https://x.cognitiveservices.azure.com/openai/v1"}, "")
	f("custom", Credential{BaseURL: "https://models.company.com"}, "")
	f("ollama", Credential{}, "")

	f("openai", Credential{}, "secret")
	f("openai", Credential{Secret: NewSecret(canary + "\r\nX: y")}, "secret")
	f("openai", Credential{Secret: NewSecret(canary + strings.Repeat("x", maxSecret))}, "secret")
	f("openai", Credential{Secret: s, Resource: "x"}, "resource")
	f("openai", Credential{Secret: s, BaseURL: "https://127.0.0.1"}, "base_url")
	f("openai", Credential{Secret: s, Header: map[string]string{"Authorization": "x"}}, "header")
	f("openai", Credential{Secret: s, Header: map[string]string{"Host": "x"}}, "header")
	f("openai", Credential{Secret: s, Header: map[string]string{"OpenAI-Project": "a\nb"}}, "header")
	f("azure", Credential{Secret: s}, "resource")
	for _, r := range []string{"a/b", "evil.com#", "a@b", ".a", "a.", "a..b", "a:1", "a b", "ä", strings.Repeat("a", 65), "a\n", "-a"} {
		f("azure", Credential{Secret: s, Resource: r}, "resource")
	}
	f("custom", Credential{Secret: s}, "base_url")
	f("sandbox", Credential{}, "provider")
}
