package provider

import "bulkhead/openai"

// Usage returns u, as openai scanned it from an answer of v, with Output holding
// all that is billed as output. Vendors differ in whether completion_tokens has
// the reasoning in it. What the total says goes before what is known of the
// vendor: an endpoint may be put right any day.
func (v *Vendor) Usage(u openai.Usage) openai.Usage {
	sum := u.Input + u.Output
	apart := u.Reasoning > u.Output || // it cannot be inside
		u.Reasoning > 0 && u.Total == sum+u.Reasoning
	switch v.billing().reasoning {
	case reasoningApart:
		apart = apart || u.Total != sum
	case reasoningBeside:
		apart = true
	case reasoningHidden:
		// What is in the total and nowhere else was thought, or was input that tools
		// brought, which costs less.
		if hidden := u.Total - sum; hidden > 0 {
			u.Output += hidden
			u.Reasoning = max(u.Reasoning, hidden)
			apart = false
		}
	}
	if apart {
		u.Output += u.Reasoning
	}
	return u
}

// Usages gathers what a stream says of its usage. The zero value is ready.
type Usages struct {
	Usage openai.Usage // what counts, set right
	Has   bool         // some was said
	Bad   bool         // some count of it was none
	Twice bool         // it was said again, and differently, by a vendor that says it once
}

// Add takes in the usage of one chunk, as scanned; has says whether there was
// one, bad whether some count of it was none. The last counts, but never one
// that says less than what was said before: what was used does not get less.
func (g *Usages) Add(v *Vendor, u openai.Usage, has, bad bool) {
	g.Bad = g.Bad || bad
	if !has {
		return
	}
	u = v.Usage(u)
	less := u.Input+u.Output < g.Usage.Input+g.Usage.Output
	if g.Has && u != g.Usage && (less || !v.billing().eachChunk) {
		g.Twice = true
	}
	if !g.Has || !less {
		g.Usage = u
	}
	g.Has = true
}
