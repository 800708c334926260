package ledger

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// The tables of list prices. models.json holds facts published by the vendors;
// sandbox.json is made up, for a provider that costs nothing.
var (
	//go:embed models.json
	modelsJSON []byte
	//go:embed sandbox.json
	sandboxJSON []byte
)

// Rates are prices in pico-USD (1e-12 USD) per token. Absent is a rate the
// table does not have, which is something else than free.
type Rates struct {
	Input, CachedInput, CacheWrite, AudioInput, ImageInput int64
	Output, Reasoning, AudioOutput, ImageOutput            int64
}

// Absent stands for a rate that is not in the table.
const Absent = -1

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

	// Prices that are not per token, in pico-USD; Absent where there is none.
	// Cost does not count them.
	PerImage, PerSecond, PerCharacter, PerQuery int64
}

// Priced reports whether calls can be priced by their tokens.
func (p *Price) Priced() bool {
	return p != nil && (p.Rates.Input != Absent || p.Rates.Output != Absent)
}

// Prices is the table. It is immutable.
type Prices struct {
	rows      map[rowKey]*Price
	providers map[string][]string // by model
	models    map[string][]Model  // by catalogue
}

type rowKey struct{ catalogue, model string }

// LoadPrices reads the embedded tables. An error means that a table is wrong
// and that this build cannot price calls; it takes some 10 ms, once.
func LoadPrices() (*Prices, error) { return parsePrices(modelsJSON, sandboxJSON) }

// Lookup returns the price of a model by the names the table uses: of the
// catalogue (provider.Vendor.Catalogue) and the vendor's own of the model.
func (p *Prices) Lookup(catalogue, model string) (*Price, bool) {
	row, ok := p.rows[rowKey{catalogue, model}]
	return row, ok
}

// Providers returns the catalogues that have a model of that name, whoever made
// it before those who only host it. The slice must not be changed.
func (p *Prices) Providers(model string) []string { return p.providers[model] }

// Models returns the models of a catalogue by name. The slice must not be
// changed.
func (p *Prices) Models(catalogue string) []Model { return p.models[catalogue] }

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

// row is a row as it stands in the file. Pointers tell absent from 0; Go's
// decoder takes whole numbers only for an int64.
type row struct {
	Provider     string              `json:"provider"`
	Model        string              `json:"model"`
	Mode         string              `json:"mode"`
	MaxInput     int64               `json:"max_input_tokens"`
	MaxOutput    int64               `json:"max_output_tokens"`
	PerToken     *rowRates           `json:"pico_usd_per_token"`
	Above        []rowAbove          `json:"above_input_tokens"`
	Tiers        map[string]rowRates `json:"service_tier"`
	PerImage     *int64              `json:"pico_usd_per_image"`
	PerSecond    *int64              `json:"pico_usd_per_second"`
	PerCharacter *int64              `json:"pico_usd_per_character"`
	PerQuery     *int64              `json:"pico_usd_per_query"`
	Supports     json.RawMessage     `json:"supports"` // not used here
	Deprecated   string              `json:"deprecated"`
}

type rowRates struct {
	Input        *int64 `json:"input"`
	CachedInput  *int64 `json:"cached_input"`
	CacheWrite   *int64 `json:"cache_write"`
	CacheWrite1h *int64 `json:"cache_write_1h"` // answers do not tell the two apart; see Cost
	AudioInput   *int64 `json:"audio_input"`
	ImageInput   *int64 `json:"image_input"`
	Output       *int64 `json:"output"`
	Reasoning    *int64 `json:"reasoning"`
	AudioOutput  *int64 `json:"audio_output"`
	ImageOutput  *int64 `json:"image_output"`
}

type rowAbove struct {
	Tokens   int64    `json:"tokens"`
	PerToken rowRates `json:"pico_usd_per_token"`
}

// maxRate bounds a price: 1 USD per token, a second, an image.
const maxRate = 1_000_000_000_000

func parsePrices(files ...[]byte) (*Prices, error) {
	p := &Prices{rows: map[rowKey]*Price{}, providers: map[string][]string{}, models: map[string][]Model{}}
	for _, file := range files {
		var rows []row
		dec := json.NewDecoder(bytes.NewReader(file))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&rows); err != nil {
			return nil, fmt.Errorf("cannot read the price table: %w", err)
		}
		if _, err := dec.Token(); err != io.EOF {
			return nil, errors.New("cannot read the price table: there is more behind its end")
		}
		for i := range rows {
			if err := p.add(&rows[i]); err != nil {
				return nil, fmt.Errorf("price table, row %d, model %q of %q: %w", i+1, rows[i].Model, rows[i].Provider, err)
			}
		}
	}
	for _, names := range p.providers {
		slices.SortFunc(names, func(a, b string) int {
			if d := rank(a) - rank(b); d != 0 {
				return d
			}
			return strings.Compare(a, b)
		})
	}
	for _, models := range p.models {
		slices.SortFunc(models, func(a, b Model) int { return strings.Compare(a.Name, b.Name) })
	}
	return p, nil
}

func (p *Prices) add(r *row) error {
	key := rowKey{r.Provider, r.Model}
	switch {
	case r.Provider == "" || r.Model == "" || r.Mode == "":
		return errors.New("provider, model or mode is missing")
	case p.rows[key] != nil:
		return errors.New("there is another row for the same model")
	case r.MaxInput < 0 || r.MaxOutput < 0:
		return errors.New("a number of tokens is below 0")
	}
	if r.Deprecated != "" {
		if _, err := time.Parse(time.DateOnly, r.Deprecated); err != nil {
			return fmt.Errorf("deprecated is no date: %w", err)
		}
	}
	price := &Price{Model: Model{r.Model, r.Mode, r.MaxInput, r.MaxOutput, r.Deprecated}, Catalogue: r.Provider}
	bad := false
	rate := func(n *int64) int64 {
		if n == nil {
			return Absent
		}
		bad = bad || *n < 0 || *n > maxRate
		return *n
	}
	price.PerImage, price.PerSecond = rate(r.PerImage), rate(r.PerSecond)
	price.PerCharacter, price.PerQuery = rate(r.PerCharacter), rate(r.PerQuery)
	price.Rates = (&rowRates{}).rates(rate)
	if r.PerToken != nil {
		price.Rates = r.PerToken.rates(rate)
	}
	for _, a := range r.Above {
		if n := len(price.Above); a.Tokens <= 0 || n > 0 && a.Tokens <= price.Above[n-1].Tokens {
			return errors.New("above_input_tokens does not ascend")
		}
		price.Above = append(price.Above, Above{a.Tokens, a.PerToken.rates(rate)})
	}
	for tier, t := range r.Tiers {
		if price.Tiers == nil {
			price.Tiers = map[string]Rates{}
		}
		price.Tiers[tier] = t.rates(rate)
	}
	if bad {
		return fmt.Errorf("a price is below 0 or above %d", int64(maxRate))
	}
	p.rows[key] = price
	p.providers[r.Model] = append(p.providers[r.Model], r.Provider)
	p.models[r.Provider] = append(p.models[r.Provider], price.Model)
	return nil
}

func (r *rowRates) rates(rate func(*int64) int64) Rates {
	rate(r.CacheWrite1h) // checked, not used
	write := rate(r.CacheWrite)
	if write == 0 {
		write = Absent // nothing on top of plain input, which is not free: see Cost
	}
	return Rates{
		Input: rate(r.Input), CachedInput: rate(r.CachedInput), CacheWrite: write,
		AudioInput: rate(r.AudioInput), ImageInput: rate(r.ImageInput),
		Output: rate(r.Output), Reasoning: rate(r.Reasoning),
		AudioOutput: rate(r.AudioOutput), ImageOutput: rate(r.ImageOutput),
	}
}
