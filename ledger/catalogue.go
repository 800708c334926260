package ledger

import (
	"strings"
	"time"
)

// Has reports whether the table has a row for the model. With Names and
// Providers it is what routing needs to know of the table.
func (p *Prices) Has(catalogue, model string) bool {
	_, ok := p.Lookup(catalogue, model)
	return ok
}

// Names returns the models of a catalogue that the gateway's endpoints can call
// and that are not past their end, sorted.
func (p *Prices) Names(catalogue string) []string {
	var out []string
	today := time.Now().Format(time.DateOnly)
	for _, m := range p.Models(catalogue) {
		switch m.Mode {
		case "chat", "completion", "embedding", "moderation":
			if (m.Deprecated == "" || m.Deprecated > today) && !strings.Contains(m.Name, "*") {
				out = append(out, m.Name)
			}
		}
	}
	return out
}
