package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// row is a row as it stands in models.json. Pointers tell absent from 0; Go's
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
	CacheWrite1h *int64 `json:"cache_write_1h"`
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

// feeRow is a row of fees.json: fees of models that models.json has. A name that
// ends in * stands for all that begin so; a later row goes over an earlier one.
type feeRow struct {
	Provider string   `json:"provider"`
	Models   []string `json:"models"`
	Per      struct {
		Call       *int64 `json:"call"`
		CallMedium *int64 `json:"call_medium"`
		CallHigh   *int64 `json:"call_high"`
		Search     *int64 `json:"search"`
		Tool       *int64 `json:"tool"`
	} `json:"pico_usd_per"`
	Least struct {
		Search int64 `json:"search"`
		Image  int64 `json:"image"`
	} `json:"least"`
	Source string `json:"source"`
}

// maxRate bounds a price: 1 USD per token, a second, an image.
const maxRate = 1_000_000_000_000

// decodeTable reads file as JSON with no more in it than to has.
func decodeTable(file []byte, to any) error {
	dec := json.NewDecoder(bytes.NewReader(file))
	dec.DisallowUnknownFields()
	if err := dec.Decode(to); err != nil {
		return fmt.Errorf("cannot read the price table: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("cannot read the price table: there is more behind its end")
	}
	return nil
}

func parsePrices(files ...[]byte) (*Prices, error) {
	p := &Prices{rows: map[rowKey]*Price{}, providers: map[string][]string{}, models: map[string][]Model{}}
	for _, file := range files {
		var rows []row
		if err := decodeTable(file, &rows); err != nil {
			return nil, err
		}
		for i := range rows {
			if err := p.add(&rows[i]); err != nil {
				return nil, fmt.Errorf("price table, row %d, model %q of %q: %w", i+1, rows[i].Model, rows[i].Provider, err)
			}
		}
	}
	for _, names := range p.providers {
		makersOrder(names)
	}
	for _, models := range p.models {
		slices.SortFunc(models, func(a, b Model) int { return strings.Compare(a.Name, b.Name) })
	}
	return p, nil
}

// checker reads rates and notes whether one is out of range.
type checker struct{ bad bool }

func (c *checker) rate(n *int64) int64 {
	if n == nil {
		return Absent
	}
	c.bad = c.bad || *n < 0 || *n > maxRate
	return *n
}

func (c *checker) err() error {
	if c.bad {
		return fmt.Errorf("a price is below 0 or above %d", int64(maxRate))
	}
	return nil
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
	var c checker
	price := &Price{Model: Model{r.Model, r.Mode, r.MaxInput, r.MaxOutput, r.Deprecated}, Catalogue: r.Provider, Fees: noFees}
	price.Fees.Image, price.Fees.Second = c.rate(r.PerImage), c.rate(r.PerSecond)
	price.Fees.Character, price.Fees.Query = c.rate(r.PerCharacter), c.rate(r.PerQuery)
	price.Rates = noRates
	if r.PerToken != nil {
		price.Rates = r.PerToken.rates(&c)
	}
	for _, a := range r.Above {
		if n := len(price.Above); a.Tokens <= 0 || n > 0 && a.Tokens <= price.Above[n-1].Tokens {
			return errors.New("above_input_tokens does not ascend")
		}
		price.Above = append(price.Above, Above{a.Tokens, a.PerToken.rates(&c)})
	}
	for tier, t := range r.Tiers {
		if price.Tiers == nil {
			price.Tiers = map[string]Rates{}
		}
		price.Tiers[tier] = t.rates(&c)
	}
	if err := c.err(); err != nil {
		return err
	}
	p.rows[key] = price
	p.providers[r.Model] = append(p.providers[r.Model], r.Provider)
	p.models[r.Provider] = append(p.models[r.Provider], price.Model)
	return nil
}

var (
	noRates = (&rowRates{}).rates(&checker{})
	noFees  = Fees{Absent, Absent, Absent, Absent, Absent, Absent, Absent, Absent, Absent}
)

func (r *rowRates) rates(c *checker) Rates {
	return Rates{
		Input: c.rate(r.Input), CachedInput: c.rate(r.CachedInput), CacheWrite: c.rate(r.CacheWrite), CacheWrite1h: c.rate(r.CacheWrite1h),
		AudioInput: c.rate(r.AudioInput), ImageInput: c.rate(r.ImageInput),
		Output: c.rate(r.Output), Reasoning: c.rate(r.Reasoning),
		AudioOutput: c.rate(r.AudioOutput), ImageOutput: c.rate(r.ImageOutput),
	}
}

// addFees puts the fees of file into the rows, while nobody has them yet.
func (p *Prices) addFees(file []byte) error {
	var rows []feeRow
	if err := decodeTable(file, &rows); err != nil {
		return err
	}
	for i := range rows {
		for _, name := range rows[i].Models {
			if err := p.addFee(&rows[i], name); err != nil {
				return fmt.Errorf("table of fees, row %d, model %q of %q: %w", i+1, name, rows[i].Provider, err)
			}
		}
	}
	return nil
}

func (p *Prices) addFee(r *feeRow, name string) error {
	if r.Source == "" || r.Least.Search < 0 || r.Least.Image < 0 {
		return errors.New("there is no source, or a number below 0")
	}
	prefix, many := strings.CutSuffix(name, "*")
	found := false
	for key, price := range p.rows {
		if key.catalogue != r.Provider || key.model != name && !(many && strings.HasPrefix(key.model, prefix)) {
			continue
		}
		found = true
		var c checker
		for _, f := range []struct {
			to   *int64
			from *int64
		}{
			{&price.Fees.Call, r.Per.Call}, {&price.Fees.CallMedium, r.Per.CallMedium}, {&price.Fees.CallHigh, r.Per.CallHigh},
			{&price.Fees.Search, r.Per.Search}, {&price.Fees.Tool, r.Per.Tool},
		} {
			if f.from != nil {
				*f.to = c.rate(f.from)
			}
		}
		price.LeastSearches, price.LeastImages = max(price.LeastSearches, r.Least.Search), max(price.LeastImages, r.Least.Image)
		if err := c.err(); err != nil {
			return err
		}
	}
	if !found {
		return errors.New("there is no such model")
	}
	return nil
}
