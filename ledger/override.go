package ledger

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"bulkhead/fault"
)

// PriceRow is an override as somebody writes it: a row of the table's shape, its
// prices decimal numbers of USD. A zero field is left as the table has it. It is
// plain data; Override checks it.
type PriceRow struct {
	Provider  string // as configured, or the catalogue's name
	Model     string // the provider's own name of it
	MaxInput  int64  // tokens
	MaxOutput int64  // tokens

	// Prices of tokens, in USD per million: "input", "cached_input",
	// "cache_write", "cache_write_1h", "audio_input", "image_input", "output",
	// "reasoning", "audio_output", "image_output". If PerMillion is there, it and
	// Above and Tiers replace all that the table has of them.
	PerMillion map[string]string
	Above      []AboveRow
	Tiers      map[string]map[string]string // by service tier

	// Prices beside the tokens', in USD each: "call", "call_medium", "call_high",
	// "search", "tool", "image", "second", "character", "query". One that is not
	// here stays as the table has it.
	Per map[string]string
}

// AboveRow are the prices of a call with more input than so many tokens.
type AboveRow struct {
	Tokens     int64
	PerMillion map[string]string
}

// Limits of overrides.
const (
	MaxPriceRows = 1000 // rows in one list
	maxTiers     = 16   // tiers of a row, and thresholds
	maxPriceName = 256  // bytes of a provider, model or tier
	maxRowTokens = 1 << 32

	millionDigits = 6  // 1 USD per million tokens is 10^6 pico-USD per token
	usdDigits     = 12 // 1 USD is 10^12 pico-USD
	maxFee        = 1000 * maxRate
)

// Override is a PriceRow that was found right.
type Override struct {
	provider, model     string
	maxInput, maxOutput int64
	tokens              bool // the three below replace the table's
	rates               Rates
	above               []Above
	tiers               map[string]Rates
	fees                Fees // Absent leaves the table's
}

// Provider and Model say what the override is for.
func (o *Override) Provider() string { return o.provider }

// Model is the provider's own name of the model.
func (o *Override) Model() string { return o.model }

// Overrides checks rows. The error is a *fault.Error of kind Invalid whose Param
// names the field: path, the index of the row, and its place there, such as
// "prices[3].service_tier.flex.input".
func Overrides(path string, rows []PriceRow) ([]Override, error) {
	if len(rows) > MaxPriceRows {
		return nil, fault.Field(path, "%s has more than %d rows", path, MaxPriceRows)
	}
	out := make([]Override, 0, len(rows))
	seen := make(map[rowKey]bool, len(rows))
	for i := range rows {
		at := path + "[" + strconv.Itoa(i) + "]"
		o, err := rows[i].Override(at)
		if err != nil {
			return nil, err
		}
		key := rowKey{o.provider, o.model}
		if seen[key] {
			return nil, fault.Field(at+".model", "%s.model: there is a row before it for the same provider and model", at)
		}
		seen[key] = true
		out = append(out, o)
	}
	return out, nil
}

// Override checks one row, whose place is path; "" names its fields alone.
func (r *PriceRow) Override(path string) (o Override, err error) {
	c := rowChecker{path: path}
	c.name("provider", r.Provider)
	c.name("model", r.Model)
	c.tokens("max_input_tokens", r.MaxInput)
	c.tokens("max_output_tokens", r.MaxOutput)
	o = Override{provider: r.Provider, model: r.Model, maxInput: r.MaxInput, maxOutput: r.MaxOutput}
	o.rates = c.rates("usd_per_million_tokens", r.PerMillion)
	o.tokens = len(r.PerMillion) > 0
	if o.tokens && o.rates.Input == Absent && o.rates.Output == Absent {
		c.fail("usd_per_million_tokens", "has no price of input or output")
	}
	if !o.tokens && (len(r.Above) > 0 || len(r.Tiers) > 0) {
		c.fail("usd_per_million_tokens", "is missing: thresholds and tiers need the standard prices beside them")
	}
	if len(r.Above) > maxTiers || len(r.Tiers) > maxTiers {
		c.fail("service_tier", "has, or above_input_tokens has, more than "+strconv.Itoa(maxTiers)+" rows")
	}
	for i := range r.Above {
		at := "above_input_tokens[" + strconv.Itoa(i) + "]"
		a := &r.Above[i]
		if a.Tokens <= 0 || a.Tokens > maxRowTokens || i > 0 && a.Tokens <= r.Above[i-1].Tokens {
			c.fail(at+".tokens", "must be above 0 and above the row's before it")
		}
		o.above = append(o.above, Above{a.Tokens, c.rates(at+".usd_per_million_tokens", a.PerMillion)})
	}
	for _, tier := range slices.Sorted(maps.Keys(r.Tiers)) {
		if tier == "" || tier == "default" || len(tier) > maxPriceName {
			c.fail("service_tier", "has a tier without a name of its own")
		}
		if o.tiers == nil {
			o.tiers = map[string]Rates{}
		}
		o.tiers[tier] = c.rates("service_tier."+tier, r.Tiers[tier])
	}
	o.fees = c.fees("usd_per", r.Per)
	if !o.tokens && len(r.Per) == 0 {
		c.fail("usd_per_million_tokens", "is missing, and usd_per too: the row says no price")
	}
	return o, c.err
}

// apply returns the row that is old, which may be nil, overridden.
func (o *Override) apply(old *Price) *Price {
	p := &Price{Model: Model{Name: o.model, Mode: "chat"}, Catalogue: o.provider, Rates: noRates, Fees: noFees}
	if old != nil {
		*p = *old
	}
	if o.maxInput > 0 {
		p.MaxInput = o.maxInput
	}
	if o.maxOutput > 0 {
		p.MaxOutput = o.maxOutput
	}
	if o.tokens {
		p.Rates, p.Above, p.Tiers = o.rates, o.above, o.tiers
	}
	for i, to := range p.Fees.list() {
		if fee := *o.fees.list()[i]; fee != Absent {
			*to = fee
		}
	}
	return p
}

// rowChecker keeps the first thing that is wrong with a row.
type rowChecker struct {
	path string
	err  error
}

func (c *rowChecker) fail(field, what string) {
	if c.err == nil {
		at := below(c.path, field)
		c.err = fault.Field(at, "%s %s", at, what)
	}
}

func (c *rowChecker) name(field, s string) {
	if s == "" || len(s) > maxPriceName || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		c.fail(field, "must be a name of 1 to "+strconv.Itoa(maxPriceName)+" bytes without spaces")
	}
}

func (c *rowChecker) tokens(field string, n int64) {
	if n < 0 || n > maxRowTokens {
		c.fail(field, "must be from 0 to "+strconv.FormatInt(maxRowTokens, 10))
	}
}

// The names of rates and fees, in the order of their lists.
var (
	rateNames = []string{"input", "cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input", "output", "reasoning", "audio_output", "image_output"}
	feeNames  = []string{"call", "call_medium", "call_high", "search", "tool", "image", "second", "character", "query"}
)

func (r *Rates) list() []*int64 {
	return []*int64{&r.Input, &r.CachedInput, &r.CacheWrite, &r.CacheWrite1h, &r.AudioInput, &r.ImageInput, &r.Output, &r.Reasoning, &r.AudioOutput, &r.ImageOutput}
}

func (f *Fees) list() []*int64 {
	return []*int64{&f.Call, &f.CallMedium, &f.CallHigh, &f.Search, &f.Tool, &f.Image, &f.Second, &f.Character, &f.Query}
}

func (c *rowChecker) rates(field string, m map[string]string) Rates {
	r := noRates
	c.amounts(field, m, rateNames, r.list(), millionDigits, maxRate)
	return r
}

func (c *rowChecker) fees(field string, m map[string]string) Fees {
	f := noFees
	c.amounts(field, m, feeNames, f.list(), usdDigits, maxFee)
	return f
}

func (c *rowChecker) amounts(field string, m map[string]string, names []string, to []*int64, fine int, limit int64) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		i := slices.Index(names, name)
		if i < 0 {
			c.fail(field+"."+name, "is not one of "+strings.Join(names, ", "))
			continue
		}
		pico, ok := parseDecimal(m[name], fine)
		if !ok || pico > limit {
			c.fail(field+"."+name, `must be a decimal number such as "2.50", at most `+formatDecimal(limit, fine)+", with at most "+strconv.Itoa(fine)+" digits after the point")
			continue
		}
		*to[i] = pico
	}
}

// parseDecimal reads a number that is not below 0 as whole units of 10^-fine. It
// has at least one digit on both sides of a point, no sign and no exponent.
func parseDecimal(s string, fine int) (n int64, ok bool) {
	whole, fraction, point := strings.Cut(s, ".")
	if !digits(whole) || point && !digits(fraction) {
		return 0, false
	}
	if fraction = strings.TrimRight(fraction, "0"); len(fraction) > fine {
		return 0, false
	}
	n, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", fine-len(fraction)), 10, 64)
	return n, err == nil
}

// formatDecimal is the inverse of parseDecimal.
func formatDecimal(n int64, fine int) string {
	s := strconv.FormatInt(n, 10)
	if missing := fine + 1 - len(s); missing > 0 {
		s = strings.Repeat("0", missing) + s
	}
	whole, fraction := s[:len(s)-fine], strings.TrimRight(s[len(s)-fine:], "0")
	if fraction == "" {
		return whole
	}
	return whole + "." + fraction
}

// Row returns the price as an override that would make it.
func (p *Price) Row() PriceRow {
	r := PriceRow{Provider: p.Catalogue, Model: p.Name, MaxInput: p.MaxInput, MaxOutput: p.MaxOutput}
	r.PerMillion = amounts(rateNames, p.Rates.list(), millionDigits)
	for i := range p.Above {
		a := &p.Above[i]
		r.Above = append(r.Above, AboveRow{a.Tokens, amounts(rateNames, a.Rates.list(), millionDigits)})
	}
	for tier, t := range p.Tiers {
		if r.Tiers == nil {
			r.Tiers = map[string]map[string]string{}
		}
		r.Tiers[tier] = amounts(rateNames, t.list(), millionDigits)
	}
	r.Per = amounts(feeNames, p.Fees.list(), usdDigits)
	return r
}

func amounts(names []string, from []*int64, fine int) map[string]string {
	var m map[string]string
	for i, n := range from {
		if *n == Absent {
			continue
		}
		if m == nil {
			m = map[string]string{}
		}
		m[names[i]] = formatDecimal(*n, fine)
	}
	return m
}

// Free returns the price of the same model where nothing of it costs anything.
func (p *Price) Free() *Price {
	free := &Price{Rates: Rates{}, Fees: noFees}
	if p != nil {
		free.Model, free.Catalogue = p.Model, p.Catalogue
	}
	return free
}
