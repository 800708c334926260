package ledger

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"

	"bulkhead/fault"
)

// ParsePriceRows reads rows as JSON: an array of objects with "provider",
// "model", "max_input_tokens", "max_output_tokens", "usd_per_million_tokens",
// "above_input_tokens" ([{"tokens", "usd_per_million_tokens"}]), "service_tier"
// and "usd_per". Prices are strings: a number of JSON has no exact meaning for
// them. A name that is not known, that comes twice, or in another case is an
// error, a *fault.Error of kind Invalid whose Param names the place below path.
// What the prices say is for Overrides to check.
func ParsePriceRows(path string, data []byte) ([]PriceRow, error) {
	p := priceParser{dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	rows := []PriceRow{}
	p.array(path, MaxPriceRows, func(at string) {
		var r PriceRow
		p.row(at, &r)
		rows = append(rows, r)
	})
	p.end(path)
	if p.err != nil {
		return nil, p.err
	}
	return rows, nil
}

// ParsePriceRow reads one row as JSON, whose fields errors name.
func ParsePriceRow(data []byte) (r PriceRow, err error) {
	p := priceParser{dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	p.row("", &r)
	p.end("")
	return r, p.err
}

// end expects that there is nothing more.
func (p *priceParser) end(at string) {
	if p.err == nil {
		if _, err := p.dec.Token(); err != io.EOF {
			p.fail(at, "goes on after its end")
		}
	}
}

// below is the name of a field of what is at a place; "" is a row by itself.
func below(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

// priceParser walks the tokens of one text and keeps its first error, after
// which it reads nothing more.
type priceParser struct {
	dec *json.Decoder
	err error
}

func (p *priceParser) fail(at, what string) {
	if p.err == nil {
		name := at
		if at == "" {
			name = "the price"
		}
		p.err = fault.Field(at, "%s %s", name, what)
	}
}

// next reads a token; nil is null, an error, or what comes after one.
func (p *priceParser) next(at string) json.Token {
	if p.err != nil {
		return nil
	}
	t, err := p.dec.Token()
	if err != nil {
		p.fail(at, "is not valid JSON")
	}
	return t
}

func (p *priceParser) array(at string, limit int, item func(at string)) {
	if p.next(at) != json.Delim('[') {
		p.fail(at, "must be an array")
		return
	}
	for i := 0; p.err == nil && p.dec.More(); i++ {
		if i >= limit {
			p.fail(at, "has more than "+strconv.Itoa(limit)+" items")
			return
		}
		item(at + "[" + strconv.Itoa(i) + "]")
	}
	p.next(at) // the bracket that closes it
}

// object gives each name to field, which reads the value.
func (p *priceParser) object(at string, limit int, field func(name, at string)) {
	if p.next(at) != json.Delim('{') {
		p.fail(at, "must be an object")
		return
	}
	seen := map[string]bool{}
	for p.err == nil && p.dec.More() {
		name, _ := p.next(at).(string)
		in := below(at, name)
		switch {
		case p.err != nil:
			return
		case seen[name]:
			p.fail(in, "is there twice")
		case len(seen) >= limit:
			p.fail(at, "has more than "+strconv.Itoa(limit)+" fields")
		case len(name) > maxPriceName:
			p.fail(at, "has a field with too long a name")
		default:
			seen[name] = true
			field(name, in)
		}
	}
	p.next(at)
}

func (p *priceParser) text(at string) string {
	s, ok := p.next(at).(string)
	if !ok {
		p.fail(at, "must be a string")
	}
	return s
}

func (p *priceParser) integer(at string) int64 {
	number, _ := p.next(at).(json.Number)
	n, err := strconv.ParseInt(string(number), 10, 64)
	if err != nil {
		p.fail(at, "must be a whole number")
	}
	return n
}

// amounts reads an object of prices. Their names and values are checked later,
// when all of the row is known.
func (p *priceParser) amounts(at string) map[string]string {
	m := map[string]string{}
	p.object(at, len(rateNames), func(name, at string) { m[name] = p.text(at) })
	return m
}

func (p *priceParser) row(at string, r *PriceRow) {
	p.object(at, 16, func(name, at string) {
		switch name {
		case "provider":
			r.Provider = p.text(at)
		case "model":
			r.Model = p.text(at)
		case "max_input_tokens":
			r.MaxInput = p.integer(at)
		case "max_output_tokens":
			r.MaxOutput = p.integer(at)
		case "usd_per_million_tokens":
			r.PerMillion = p.amounts(at)
		case "usd_per":
			r.Per = p.amounts(at)
		case "above_input_tokens":
			p.array(at, maxTiers, func(at string) { r.Above = append(r.Above, p.above(at)) })
		case "service_tier":
			r.Tiers = map[string]map[string]string{}
			p.object(at, maxTiers, func(tier, at string) { r.Tiers[tier] = p.amounts(at) })
		default:
			p.fail(at, "is not a field of a price")
		}
	})
}

func (p *priceParser) above(at string) (a AboveRow) {
	p.object(at, 2, func(name, at string) {
		switch name {
		case "tokens":
			a.Tokens = p.integer(at)
		case "usd_per_million_tokens":
			a.PerMillion = p.amounts(at)
		default:
			p.fail(at, "is not a field of a price")
		}
	})
	return a
}

// MarshalJSON writes the row in the form that ParsePriceRows reads.
func (r PriceRow) MarshalJSON() ([]byte, error) {
	type above struct {
		Tokens     int64             `json:"tokens"`
		PerMillion map[string]string `json:"usd_per_million_tokens"`
	}
	row := struct {
		Provider   string                       `json:"provider"`
		Model      string                       `json:"model"`
		MaxInput   int64                        `json:"max_input_tokens,omitempty"`
		MaxOutput  int64                        `json:"max_output_tokens,omitempty"`
		PerMillion map[string]string            `json:"usd_per_million_tokens,omitempty"`
		Above      []above                      `json:"above_input_tokens,omitempty"`
		Tiers      map[string]map[string]string `json:"service_tier,omitempty"`
		Per        map[string]string            `json:"usd_per,omitempty"`
	}{r.Provider, r.Model, r.MaxInput, r.MaxOutput, r.PerMillion, nil, r.Tiers, r.Per}
	for _, a := range r.Above {
		row.Above = append(row.Above, above(a))
	}
	return json.Marshal(row)
}
