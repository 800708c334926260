package provider

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"bulkhead/egress"
	"bulkhead/openai"
)

// Auth is how a vendor wants its key.
type Auth uint8

// The ways of authentication.
const (
	Bearer       Auth = iota // Authorization: Bearer KEY
	APIKeyHeader             // api-key: KEY (Azure)
	XAPIKey                  // x-api-key: KEY
)

// Sandbox is the kind of the built-in provider that runs in process.
const Sandbox = "sandbox"

// resourceMark stands in a BaseURL where Credential.Resource goes.
const resourceMark = "{resource}"

// Vendor is one row: an upstream that speaks OpenAI's form. A *Vendor is
// immutable once Builtin or Vendors returned it and may be shared.
type Vendor struct {
	Name      string // as in "name/model" and in configuration
	Kind      string // name of the built-in row it was made from
	BaseURL   string // no trailing slash, ends before /chat/completions; "" if each credential brings its own
	Auth      Auth
	EnvKey    string            // environment variable that customarily holds the key; "" none
	Catalogue string            // the vendor's name in the price catalogue; "" is not in it
	Endpoints []openai.Endpoint // what it serves; anything else is not sent to it

	NoStreamOptions bool // refuses stream_options; it sends usage unasked
	OneSystem       bool // takes one system message only, the first
	MaxTokensOnly   bool // refuses max_completion_tokens; max_tokens means the same there
	CacheKey        bool // takes prompt_cache_key
	NeedsBaseURL    bool // the built-in row has no address
	NeedsSecret     bool // a call without a secret cannot succeed
	Local           bool // by default on this machine, no company's data leaves it
	BuiltinURL      bool // BaseURL is the vendor's own and cannot be a gateway

	urls map[openai.Endpoint]*address // of BaseURL, if it has no {resource}; never written to
}

// Serves reports whether v has the endpoint.
func (v *Vendor) Serves(e openai.Endpoint) bool { return slices.Contains(v.Endpoints, e) }

// resource reports whether the address needs Credential.Resource.
func (v *Vendor) resource() bool { return strings.Contains(v.BaseURL, resourceMark) }

// prepare parses the addresses once, so that a call does not have to.
func (v *Vendor) prepare() *Vendor {
	v.urls = nil
	if v.BaseURL == "" || v.resource() {
		return v
	}
	v.urls = make(map[openai.Endpoint]*address, len(v.Endpoints))
	for _, e := range v.Endpoints {
		u, err := url.Parse(v.BaseURL + e.Path())
		if err != nil {
			panic("BUG: base URL of provider " + v.Name + ": " + err.Error())
		}
		v.urls[e] = newAddress(u)
	}
	return v
}

// Builtin returns the built-in rows by name, a fresh copy. Addresses and quirks
// are from the vendors' API references; their environment variables are the
// ones the vendors' own SDKs read.
func Builtin() map[string]*Vendor {
	var (
		chat  = []openai.Endpoint{openai.Chat}
		text  = []openai.Endpoint{openai.Chat, openai.Completions}
		embed = []openai.Endpoint{openai.Chat, openai.Embeddings}
		most  = []openai.Endpoint{openai.Chat, openai.Completions, openai.Embeddings}
		all   = []openai.Endpoint{openai.Chat, openai.Completions, openai.Embeddings, openai.Moderations,
			openai.Images, openai.ImageEdits, openai.ImageVariations, openai.Speech, openai.Transcriptions, openai.Translations}
		with = func(base []openai.Endpoint, more ...openai.Endpoint) []openai.Endpoint {
			return append(slices.Clone(base), more...)
		}
	)
	// Who has /responses is who documents it: OpenAI, Azure ("v1" API), Groq,
	// OpenRouter, xAI, Fireworks, vLLM. Ollama's newer versions do, and keep nothing.
	rows := []Vendor{
		{Name: "openai", BaseURL: "https://api.openai.com/v1", EnvKey: "OPENAI_API_KEY", Catalogue: "openai", Endpoints: with(all, openai.Responses), CacheKey: true},
		// Azure's v1 API: the model is the deployment's name, no api-version.
		{Name: "azure", BaseURL: "https://{resource}.openai.azure.com/openai/v1", Auth: APIKeyHeader, EnvKey: "AZURE_OPENAI_API_KEY", Catalogue: "azure", Endpoints: with(most, openai.Images, openai.ImageEdits, openai.Speech, openai.Transcriptions, openai.Translations, openai.Responses), CacheKey: true},
		{Name: "groq", BaseURL: "https://api.groq.com/openai/v1", EnvKey: "GROQ_API_KEY", Catalogue: "groq", Endpoints: with(chat, openai.Speech, openai.Transcriptions, openai.Translations, openai.Responses)},
		// Mistral answers 422 extra_forbidden to both fields and sends usage in the last chunk.
		{Name: "mistral", BaseURL: "https://api.mistral.ai/v1", EnvKey: "MISTRAL_API_KEY", Catalogue: "mistral", Endpoints: []openai.Endpoint{openai.Chat, openai.Embeddings, openai.Moderations, openai.Transcriptions}, NoStreamOptions: true, MaxTokensOnly: true},
		{Name: "deepseek", BaseURL: "https://api.deepseek.com/v1", EnvKey: "DEEPSEEK_API_KEY", Catalogue: "deepseek", Endpoints: chat},
		{Name: "xai", BaseURL: "https://api.x.ai/v1", EnvKey: "XAI_API_KEY", Catalogue: "xai", Endpoints: with(text, openai.Images, openai.Responses)},
		{Name: "together", BaseURL: "https://api.together.xyz/v1", EnvKey: "TOGETHER_API_KEY", Catalogue: "together", Endpoints: with(most, openai.Images, openai.Speech, openai.Transcriptions, openai.Translations)},
		{Name: "fireworks", BaseURL: "https://api.fireworks.ai/inference/v1", EnvKey: "FIREWORKS_API_KEY", Catalogue: "fireworks", Endpoints: with(most, openai.Responses)},
		{Name: "openrouter", BaseURL: "https://openrouter.ai/api/v1", EnvKey: "OPENROUTER_API_KEY", Endpoints: with(most, openai.Responses)},
		// Perplexity's Sonar API has no /v1 and sends usage with every chunk.
		{Name: "perplexity", BaseURL: "https://api.perplexity.ai", EnvKey: "PERPLEXITY_API_KEY", Catalogue: "perplexity", Endpoints: chat, NoStreamOptions: true, OneSystem: true},
		{Name: "cerebras", BaseURL: "https://api.cerebras.ai/v1", EnvKey: "CEREBRAS_API_KEY", Catalogue: "cerebras", Endpoints: text},
		// Anthropic's and Gemini's OpenAI-form endpoints.
		{Name: "anthropic", BaseURL: "https://api.anthropic.com/v1", EnvKey: "ANTHROPIC_API_KEY", Catalogue: "anthropic", Endpoints: chat},
		{Name: "gemini", BaseURL: "https://generativelanguage.googleapis.com/v1beta/openai", EnvKey: "GEMINI_API_KEY", Catalogue: "gemini", Endpoints: with(embed, openai.Images)},

		// The templates of many open models refuse a second system message.
		{Name: "ollama", BaseURL: "http://127.0.0.1:11434/v1", Endpoints: most, Local: true, OneSystem: true},
		{Name: "vllm", Endpoints: with(most, openai.Transcriptions, openai.Translations, openai.Responses), NeedsBaseURL: true, OneSystem: true},
		{Name: "custom", Endpoints: with(all, openai.Responses), NeedsBaseURL: true, OneSystem: true},
		{Name: Sandbox, BaseURL: "http://sandbox.invalid/v1", Catalogue: Sandbox, Endpoints: all, Local: true},
	}
	m := make(map[string]*Vendor, len(rows))
	for i := range rows {
		v := &rows[i]
		v.Kind = v.Name
		v.NeedsSecret = v.EnvKey != ""
		v.BuiltinURL = !v.NeedsBaseURL
		m[v.Name] = v.prepare()
	}
	return m
}

// Override is what an operator's configuration says about one provider: it adds
// one of a kind, or moves a built-in one to another address.
type Override struct {
	Kind    string // name of a built-in row; may be left out for a built-in name
	BaseURL string // "" keeps the kind's
}

// Vendors returns the built-in rows with over applied, and every problem at
// once; the map is complete only if there is none. The operator is trusted with
// addresses: private ones are fine, and http is fine on this machine. Elsewhere
// http needs allowPrivateHTTP, since prompts and keys would cross a network in
// the clear.
func Vendors(over map[string]Override, allowPrivateHTTP bool) (map[string]*Vendor, []error) {
	m := Builtin()
	kinds := slices.Sorted(maps.Keys(m))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(over)) {
		v, err := apply(name, over[name], kinds, allowPrivateHTTP)
		if err != nil {
			errs = append(errs, fmt.Errorf("providers.%.64s: %w", name, err))
			continue
		}
		m[name] = v
	}
	return m, errs
}

func apply(name string, o Override, kinds []string, allowHTTP bool) (*Vendor, error) {
	_, builtin := slices.BinarySearch(kinds, name)
	switch {
	case !providerName(name):
		return nil, fmt.Errorf("the name must match [a-z0-9][a-z0-9._-]{0,63}")
	case name == "agent":
		return nil, fmt.Errorf("the name is taken: agent/… are a company's agents")
	case o.Kind == "" && builtin:
		o.Kind = name
	case o.Kind == "":
		return nil, fmt.Errorf("kind is missing; it is one of %s", strings.Join(kinds, ", "))
	case builtin && o.Kind != name:
		return nil, fmt.Errorf("kind %.64q: a built-in provider keeps its kind; choose another name", o.Kind)
	}
	if _, known := slices.BinarySearch(kinds, o.Kind); !known {
		return nil, fmt.Errorf("unknown kind %.64q; it is one of %s", o.Kind, strings.Join(kinds, ", "))
	}
	v := Builtin()[o.Kind]
	if o.Kind == Sandbox && (name != Sandbox || o.BaseURL != "") {
		return nil, fmt.Errorf("the sandbox runs in process: it has one name and no address")
	}
	v.Name = name
	if o.BaseURL != "" {
		base, err := operatorURL(o.BaseURL, o.Kind, allowHTTP)
		if err != nil {
			return nil, err
		}
		v.BaseURL, v.BuiltinURL, v.Local = base, false, false
	} else if v.NeedsBaseURL && !builtin {
		return nil, fmt.Errorf("base_url is missing; kind %s has none of its own", o.Kind)
	}
	return v.prepare(), nil
}

// operatorURL checks a base_url of the configuration and returns it normalised.
func operatorURL(raw, kind string, allowHTTP bool) (string, error) {
	plain := raw
	if kind == "azure" {
		plain = strings.Replace(raw, "://"+resourceMark+".", "://x-resource-x.", 1)
	}
	u, err := egress.CheckURL(plain, true)
	if err != nil {
		return "", err
	}
	if u.Scheme == "http" && !allowHTTP && !loopback(u.Hostname()) {
		return "", fmt.Errorf("base_url must start with https://; http to another machine needs upstream.allow_private")
	}
	return strings.Replace(u.String(), "://x-resource-x.", "://"+resourceMark+".", 1), nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// providerName reports whether s matches [a-z0-9][a-z0-9._-]{0,63}.
func providerName(s string) bool {
	if s == "" || len(s) > 64 || !alnum(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alnum(c) && c != '.' && c != '_' && c != '-' || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}
