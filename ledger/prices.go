package ledger

import (
	_ "embed"
	"slices"
	"strings"
)

// The tables of list prices. models.json holds facts published by the vendors,
// fees.json those that are not per token and not in it, with their sources;
// sandbox.json is made up, for a provider that costs nothing.
var (
	//go:embed models.json
	modelsJSON []byte
	//go:embed fees.json
	feesJSON []byte
	//go:embed sandbox.json
	sandboxJSON []byte
)

// Rates are prices in pico-USD (1e-12 USD) per token. Absent is a rate the
// table does not have, which is something else than free.
type Rates struct {
	Input, CachedInput, CacheWrite, CacheWrite1h, AudioInput, ImageInput int64
	Output, Reasoning, AudioOutput, ImageOutput                          int64
}

// Absent stands for a rate that is not in the table.
const Absent = -1

// Fees are prices beside the tokens', in pico-USD each; Absent where there is
// none.
type Fees struct {
	// Call is for each call that was answered; CallMedium and CallHigh instead
	// of it where so much was looked up for it (openai.SearchContext).
	Call, CallMedium, CallHigh int64

	Search    int64 // a search, or a source, as the vendor bills it
	Tool      int64 // another run of a tool by the vendor
	Image     int64 // made
	Second    int64 // of audio
	Character int64
	Query     int64 // reranked or embedded
}

// Above are the rates of a call whose input is longer than Tokens. They hold
// for all tokens of the call, not only for those above.
type Above struct {
	Tokens int64
	Rates  Rates
}

// Model is a model as a catalogue knows it.
type Model struct {
	Name       string
	Mode       string // "chat", "completion", "embedding", "moderation", "image_generation", …
	MaxInput   int64  // tokens; 0 unknown
	MaxOutput  int64  // tokens; 0 unknown
	Deprecated string // date of retirement, "2026-11-30"; "" none is known
}

// Price is a row of the table. It must not be changed.
type Price struct {
	Model
	Catalogue string // the provider's name in the table
	Rates     Rates
	Above     []Above          // by Tokens, ascending
	Tiers     map[string]Rates // by service tier: "batch", "flex", "priority"
	Fees      Fees

	// What every call that is answered uses at least, whatever its usage says. A
	// model that searches at its own will has no bound of its searches.
	LeastSearches, LeastImages int64
}

// Priced reports whether calls can be priced, by their tokens or by what they
// have instead: images, seconds, characters.
func (p *Price) Priced() bool {
	return p != nil && (p.Rates.Input != Absent || p.Rates.Output != Absent || p.byUnit())
}

// byUnit reports whether a model is billed by image, second or character, and
// not by tokens.
func (p *Price) byUnit() bool {
	return p.Rates == noRates && (p.Fees.Image != Absent || p.Fees.Second != Absent || p.Fees.Character != Absent)
}

// Prices is the table. It is immutable.
type Prices struct {
	base      *Prices // what With was called on; nil for the table as built
	rows      map[rowKey]*Price
	providers map[string][]string // by model
	models    map[string][]Model  // by catalogue
}

type rowKey struct{ catalogue, model string }

// LoadPrices reads the embedded tables. An error means that a table is wrong
// and that this build cannot price calls; it takes some 10 ms, once.
func LoadPrices() (*Prices, error) {
	p, err := parsePrices(modelsJSON, sandboxJSON)
	if err == nil {
		err = p.addFees(feesJSON)
	}
	return p, err
}

// Lookup returns the price of a model by the names the table uses: of the
// catalogue (provider.Vendor.Catalogue) and the vendor's own of the model.
func (p *Prices) Lookup(catalogue, model string) (*Price, bool) {
	for ; p != nil; p = p.base {
		if row, ok := p.rows[rowKey{catalogue, model}]; ok {
			return row, true
		}
	}
	return nil, false
}

// Find is Lookup for a target: a row of the provider by its name in the
// configuration, which only an override can have made, comes before one of its
// catalogue.
func (p *Prices) Find(provider, catalogue, model string) (*Price, bool) {
	if provider != catalogue {
		if row, ok := p.Lookup(provider, model); ok {
			return row, true
		}
	}
	if catalogue == "" {
		return nil, false
	}
	return p.Lookup(catalogue, model)
}

// Providers returns the catalogues that have a model of that name, whoever made
// it before those who only host it. The slice must not be changed.
func (p *Prices) Providers(model string) []string {
	for ; p != nil; p = p.base {
		if names, ok := p.providers[model]; ok {
			return names
		}
	}
	return nil
}

// Models returns the models of a catalogue by name. The slice must not be
// changed.
func (p *Prices) Models(catalogue string) []Model {
	for ; p != nil; p = p.base {
		if models, ok := p.models[catalogue]; ok {
			return models
		}
	}
	return nil
}

// With returns the table with the overrides made: a row replaces the one of the
// same provider and model, in what it says, or adds one. p stays as it is, and
// what the two have in common is shared: a company's prices are small however
// large the table.
func (p *Prices) With(overrides []Override) *Prices {
	if len(overrides) == 0 {
		return p
	}
	n := &Prices{base: p, rows: map[rowKey]*Price{}, providers: map[string][]string{}, models: map[string][]Model{}}
	for i := range overrides {
		n.override(&overrides[i])
	}
	return n
}

func (p *Prices) override(o *Override) {
	key := rowKey{o.provider, o.model}
	old, known := p.Lookup(key.catalogue, key.model)
	p.rows[key] = o.apply(old)

	models := slices.Clone(p.Models(key.catalogue))
	at, found := slices.BinarySearchFunc(models, key.model, func(m Model, name string) int { return strings.Compare(m.Name, name) })
	if found {
		models[at] = p.rows[key].Model
	} else {
		models = slices.Insert(models, at, p.rows[key].Model)
	}
	p.models[key.catalogue] = models
	if !known {
		p.providers[key.model] = makersOrder(append(slices.Clone(p.Providers(key.model)), key.catalogue))
	}
}

// makersFirst orders the catalogues for a model that several have: vendors that
// serve what they make, then clouds with a contract with the maker, then hosts.
// Any other comes after these.
var makersFirst = []string{
	"openai", "anthropic", "gemini", "mistral", "deepseek", "xai", "cohere", "moonshot", "zai", "voyage", "jina",
	"dashscope", "perplexity", // make some and host others
	"azure", "vertex", "bedrock",
	"groq", "cerebras", "together", "fireworks", "nebius", "deepinfra",
}

func rank(catalogue string) int {
	if i := slices.Index(makersFirst, catalogue); i >= 0 {
		return i
	}
	return len(makersFirst)
}

// makersOrder sorts names of catalogues in place and returns them.
func makersOrder(names []string) []string {
	slices.SortFunc(names, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return names
}
