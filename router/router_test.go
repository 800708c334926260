package router_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/router"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// catalogue lists models by vendor, makers before hosts.
type catalogue map[string][]string

func (c catalogue) Providers(model string) (out []string) {
	for _, vendor := range []string{"openai", "mistral", "azure", "groq", "sandbox"} {
		if slices.Contains(c[vendor], model) {
			out = append(out, vendor)
		}
	}
	return out
}
func (c catalogue) Has(vendor, model string) bool { return slices.Contains(c[vendor], model) }
func (c catalogue) Names(vendor string) []string  { return c[vendor] }

func newRouter(t *testing.T) *router.Router {
	t.Helper()
	vendors, problems := provider.Vendors(map[string]provider.Override{
		"up":       {Kind: "custom", BaseURL: "http://127.0.0.1:1/v1"},
		"openai-2": {Kind: "openai", BaseURL: "http://127.0.0.1:2/v1"},
	}, false)
	if len(problems) > 0 {
		t.Fatal(errors.Join(problems...))
	}
	return router.New(vendors, catalogue{
		"openai": {"gpt-4o", "text-embedding-3-small"}, "azure": {"gpt-4o"}, "groq": {"llama", "org/llama-4"},
		"mistral": {"mistral-small"}, "sandbox": {"echo", "slow"},
	})
}

// with makes a scope whose company has credentials for these providers.
func with(t *testing.T, kind tenant.KeyKind, providers []string, edit func(*tenant.Company)) tenant.Scope {
	t.Helper()
	w := tenanttest.New(t, tenant.Options{})
	_, s := w.Company("acme", kind, func(c *tenant.Company) {
		c.Providers = slices.Sorted(slices.Values(providers))
		if edit != nil {
			edit(c)
		}
	})
	return s
}

func routes(all map[string][]string) func(*tenant.Company) {
	return func(c *tenant.Company) {
		c.Routes = map[string]*tenant.Route{}
		for name, targets := range all {
			r := &tenant.Route{Name: name, CreatedAt: time.Unix(7, 0)}
			for _, m := range targets {
				r.Targets = append(r.Targets, tenant.RouteTarget{Model: m})
			}
			c.Routes[name] = r
		}
	}
}

func permit(mode tenant.PermissionMode, models ...string) func(*tenant.Company) {
	return func(c *tenant.Company) {
		for _, p := range c.Projects {
			p.Permission = tenant.ModelPermission{Mode: mode, Models: models}
		}
	}
}

func both(a, b func(*tenant.Company)) func(*tenant.Company) {
	return func(c *tenant.Company) { a(c); b(c) }
}

// resolved returns the targets as "provider/model", or the error's code.
func resolved(t *testing.T, r *router.Router, s tenant.Scope, e openai.Endpoint, model string) string {
	t.Helper()
	targets, err := r.Route(s, e, model, nil)
	if err != nil {
		return fault.As(err).Code
	}
	var out []string
	for _, target := range targets {
		if target.Company != s.ID().String() {
			t.Errorf("%s: a target of company %q", model, target.Company)
		}
		out = append(out, target.Provider+"/"+target.Model)
	}
	return strings.Join(out, " ")
}

const unknown = "model_not_found"

func TestNames(t *testing.T) {
	r := newRouter(t)
	s := with(t, tenant.KeyLive, []string{"openai", "groq", "up"}, routes(map[string][]string{
		"fast":   {"groq/llama", "openai/gpt-4o"},
		"gpt-4o": {"up/mine"},                                // a route comes before the catalogue
		"half":   {"mistral/mistral-small", "openai/gpt-4o"}, // no credential for the first
		"none":   {"mistral/mistral-small"},
		"gone":   {"removed/by-the-operator", "up/x"},
	}))
	f := func(model, want string) {
		t.Helper()
		if got := resolved(t, r, s, openai.Chat, model); got != want {
			t.Errorf("%q goes to %q, want %q", model, got, want)
		}
	}
	f("fast", "groq/llama openai/gpt-4o")
	f("gpt-4o", "up/mine")
	f("half", "openai/gpt-4o")
	f("none", unknown)
	f("gone", "up/x")
	f("openai/gpt-4o", "openai/gpt-4o")
	f("up/anything/at all", "up/anything/at all")
	f("openai/not-listed", "openai/not-listed") // newer than the catalogue
	f("llama", "groq/llama")
	f("org/llama-4", "groq/org/llama-4") // a bare name with a slash of its own
	f("mistral-small", unknown)          // no credential
	f("mistral/mistral-small", unknown)
	f("azure/gpt-4o", unknown)
	f("sandbox/echo", "sandbox/echo")
	f("sandbox/other", unknown)
	f("echo", unknown) // the sandbox is never meant by a bare name
	f("", unknown)
	f("/", unknown)
	f("up/", unknown)
	f("nobody/x", unknown)
	f("FAST", unknown)
	f("fast ", unknown)
	f(strings.Repeat("x", 300), "")
	if got := resolved(t, r, s, openai.Moderations, "llama"); got != "model_not_supported" {
		t.Errorf("groq has no moderations: %q", got)
	}
	if got := resolved(t, r, s, openai.Embeddings, "fast"); got != "openai/gpt-4o" {
		t.Errorf("only openai has embeddings: %q", got)
	}
}

// TestBareNames: makers before hosts, the built-in row before others like it,
// and only what the company has a credential for.
func TestBareNames(t *testing.T) {
	r := newRouter(t)
	f := func(want string, providers ...string) {
		t.Helper()
		if got := resolved(t, r, with(t, tenant.KeyLive, providers, nil), openai.Chat, "gpt-4o"); got != want {
			t.Errorf("with %v: %q, want %q", providers, got, want)
		}
	}
	f("openai/gpt-4o", "openai", "azure", "openai-2")
	f("openai-2/gpt-4o", "openai-2", "azure")
	f("azure/gpt-4o", "azure")
	f(unknown, "groq", "up")
	f(unknown)
}

// TestTestKeys never leave the sandbox, whatever they ask for and whatever the
// company has.
func TestTestKeys(t *testing.T) {
	r := newRouter(t)
	s := with(t, tenant.KeyTest, []string{"openai"}, routes(map[string][]string{"fast": {"openai/gpt-4o"}}))
	f := func(model, want string) {
		t.Helper()
		for _, e := range []openai.Endpoint{openai.Chat, openai.Completions, openai.Embeddings, openai.Moderations} {
			if got := resolved(t, r, s, e, model); got != want {
				t.Errorf("%q goes to %q, want %q", model, got, want)
			}
		}
	}
	f("sandbox/slow", "sandbox/slow")
	f("sandbox/echo", "sandbox/echo")
	f("gpt-4o", "sandbox/echo")
	f("openai/gpt-4o", "sandbox/echo")
	f("mistral-small", "sandbox/echo") // no credential needed to try it
	f("up/any", "sandbox/echo")
	f("fast", "sandbox/echo")
	f("nonsense", unknown)
	f("sandbox/other", unknown)
}

// TestPermissions: a model is not reached under another of its names.
func TestPermissions(t *testing.T) {
	r := newRouter(t)
	fast := routes(map[string][]string{"fast": {"groq/llama", "openai/gpt-4o"}})
	f := func(mode tenant.PermissionMode, models string, want map[string]string) {
		t.Helper()
		s := with(t, tenant.KeyLive, []string{"openai", "groq"}, both(fast, permit(mode, strings.Fields(models)...)))
		for model, to := range want {
			if got := resolved(t, r, s, openai.Chat, model); got != to {
				t.Errorf("%s %s: %q goes to %q, want %q", mode, models, model, got, to)
			}
		}
	}
	f(tenant.DenyList, "gpt-4o", map[string]string{"gpt-4o": unknown, "openai/gpt-4o": unknown, "fast": "groq/llama", "llama": "groq/llama"})
	f(tenant.DenyList, "openai/gpt-4o", map[string]string{"gpt-4o": unknown, "openai/gpt-4o": unknown, "fast": "groq/llama"})
	f(tenant.DenyList, "fast", map[string]string{"fast": unknown, "gpt-4o": "openai/gpt-4o"})
	f(tenant.DenyList, "", map[string]string{"fast": "groq/llama openai/gpt-4o"})
	f(tenant.AllowList, "gpt-4o", map[string]string{"gpt-4o": "openai/gpt-4o", "openai/gpt-4o": "openai/gpt-4o", "fast": "openai/gpt-4o", "llama": unknown, "sandbox/echo": unknown})
	f(tenant.AllowList, "fast", map[string]string{"fast": "groq/llama openai/gpt-4o", "gpt-4o": unknown})
	f(tenant.AllowList, "", map[string]string{"gpt-4o": unknown, "fast": unknown, "sandbox/echo": unknown})
}

// TestSameRefusal: not allowed, not credentialed and never heard of are told
// alike, but for the name.
func TestSameRefusal(t *testing.T) {
	r := newRouter(t)
	s := with(t, tenant.KeyLive, []string{"openai"}, permit(tenant.DenyList, "gpt-4o"))
	refusal := func(model string) string {
		_, err := r.Route(s, openai.Chat, model, nil)
		e := fault.As(err)
		return fmt.Sprint(e.Kind, e.Code, e.Type, e.Param, strings.ReplaceAll(e.Message, model, "NAME"))
	}
	want := refusal("never-heard-of")
	for _, model := range []string{"gpt-4o", "openai/gpt-4o", "mistral-small", "groq/llama", "nobody/x"} {
		if got := refusal(model); got != want {
			t.Errorf("%q is refused with %s, want %s", model, got, want)
		}
	}
	if _, err := r.Route(s, openai.Chat, "a\nb\x00", nil); strings.ContainsAny(err.Error(), "\n\x00") {
		t.Errorf("the refusal holds control characters: %q", err)
	}
}

func TestWeights(t *testing.T) {
	r := newRouter(t)
	s := with(t, tenant.KeyLive, []string{"openai", "groq", "up"}, func(c *tenant.Company) {
		c.Routes = map[string]*tenant.Route{"split": {Name: "split", Targets: []tenant.RouteTarget{
			{Model: "up/last"}, {Model: "openai/gpt-4o", Weight: 1}, {Model: "groq/llama", Weight: 3},
		}}}
	})
	const calls = 8000
	seen := map[string]int{}
	for range calls {
		seen[resolved(t, r, s, openai.Chat, "split")]++
	}
	if len(seen) != 2 {
		t.Fatalf("orders seen: %v", seen)
	}
	// The rest keep their order behind the one that was chosen.
	one, three := seen["openai/gpt-4o up/last groq/llama"], seen["groq/llama up/last openai/gpt-4o"]
	if one+three != calls || one < calls/5 || one > calls*3/10 {
		t.Errorf("%d and %d of %d calls, want about 1 in 4 and 3 in 4", one, three, calls)
	}
}

func TestModels(t *testing.T) {
	r := newRouter(t)
	list := func(s tenant.Scope) (out []string) {
		for _, m := range r.Models(s) {
			out = append(out, m.ID+" ("+m.OwnedBy+")")
			if one, err := r.Model(s, m.ID); err != nil || one != m {
				t.Errorf("%s is listed as %v and found as %v, %v", m.ID, m, one, err)
			}
		}
		return out
	}
	f := func(s tenant.Scope, want ...string) {
		t.Helper()
		if got := list(s); !slices.Equal(got, want) {
			t.Errorf("models are %q, want %q", got, want)
		}
	}
	f(with(t, tenant.KeyLive, nil, nil), "sandbox/echo (sandbox)", "sandbox/slow (sandbox)")
	f(with(t, tenant.KeyLive, []string{"openai", "azure"}, routes(map[string][]string{"fast": {"openai/gpt-4o"}, "dead": {"groq/llama"}})),
		"azure/gpt-4o (azure)", "fast (company)", "gpt-4o (openai)", "sandbox/echo (sandbox)", "sandbox/slow (sandbox)", "text-embedding-3-small (openai)")
	f(with(t, tenant.KeyLive, []string{"openai"}, permit(tenant.AllowList, "gpt-4o")), "gpt-4o (openai)")
	f(with(t, tenant.KeyAdmin, []string{"openai"}, permit(tenant.AllowList, "gpt-4o")), // a company's admin sees all
		"gpt-4o (openai)", "sandbox/echo (sandbox)", "sandbox/slow (sandbox)", "text-embedding-3-small (openai)")
	if _, err := r.Model(with(t, tenant.KeyLive, nil, nil), "gpt-4o"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a model without a credential: %v", err)
	}
}

func TestRouteAllocations(t *testing.T) {
	r := newRouter(t)
	s := with(t, tenant.KeyLive, []string{"openai"}, nil)
	var room [2]provider.Target
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.Route(s, openai.Chat, "openai/gpt-4o", room[:0]); err != nil {
			t.Fatal(err)
		}
	}); n > 1 { // the id of the company, as text
		t.Errorf("%v allocations", n)
	}
}
