package audit

import (
	"fmt"
	"time"
)

// Kind says what is wrong with a chain.
type Kind string

// The kinds of findings.
const (
	Changed  Kind = "changed"  // the row is not the one that was written at this place
	Missing  Kind = "missing"  // rows were taken out
	Inserted Kind = "inserted" // a row that no gateway has written
	Cut      Kind = "cut"      // the end was taken off
	BadHead  Kind = "head"     // the head is not as a gateway left it
	Anchor   Kind = "anchor"   // the chain is not the one that the anchor was taken from

	// Of a company's chain as the operators' acts speak of it; see Roll.
	Restarted Kind = "restarted" // it was taken away whole, and begun anew
	Unbegun   Kind = "unbegun"   // nobody has begun it
	Unerased  Kind = "unerased"  // the company is marked as erased, and nobody has erased it
	Gone      Kind = "gone"      // the company is not there at all
)

// Finding is one thing that is wrong with a chain.
type Finding struct {
	Kind     Kind   `json:"kind"`
	Sequence int64  `json:"sequence"`       // of the row, from 1; of one without a link, behind which it stands
	To       int64  `json:"to,omitempty"`   // the last of several rows in a row
	ID       string `json:"id,omitempty"`   // of the row, if there is one
	Text     string `json:"text,omitempty"` // for a person
}

// span is a finding on the rows from one to another, which may be the same.
func span(kind Kind, from, to int64, text string) Finding {
	f := Finding{Kind: kind, Sequence: from, Text: text}
	if to > from {
		f.To = to
	}
	return f
}

// Report is what a check has found.
type Report struct {
	Chain    string    `json:"chain"` // the company's id, or "operator"
	Count    int64     `json:"count"` // of the head, as it is stored
	Head     string    `json:"head"`  // its hash, in hexadecimal
	Findings []Finding `json:"findings"`
	More     int64     `json:"more_findings,omitempty"` // that are not listed
}

// maxFindings is how many findings a Report lists.
const maxFindings = 100

// Add adds a finding.
func (r *Report) Add(f Finding) {
	if len(r.Findings) == maxFindings {
		r.More++
		return
	}
	r.Findings = append(r.Findings, f)
}

// Check holds a chain, as it is read, against what it must be: first each Link
// in the order of the chain, then each Row, then End. It holds no rows, so a
// chain may be of any length.
type Check struct {
	chain  *Chain
	head   *Head
	seal   []byte
	anchor *Head
	at     Head  // of the last link seen
	known  bool  // at.Hash is what the next link must go on from
	linked int64 // links whose row is there
	placed int64 // rows that have a link
	behind int64 // the last place of a row seen
	report Report
}

// Check begins the check of a chain. head is nil if the chain has none. anchor,
// unless it is nil, is what the head was at some time before.
func (c *Chain) Check(name string, head *Head, seal []byte, anchor *Head) *Check {
	k := &Check{chain: c, head: head, seal: seal, anchor: anchor, known: true, report: Report{Chain: name, Findings: []Finding{}}}
	if head != nil {
		k.report.Count, k.report.Head = head.Count, head.Hash.String()
	}
	return k
}

// Link takes the next link, in the order of seq. e is the row it is for, nil if
// there is none.
func (k *Check) Link(seq int64, id string, hash Hash, e *Event) {
	if e != nil {
		k.linked++
	}
	if seq <= k.at.Count { // only where somebody has taken the keys off the tables
		k.report.Add(Finding{Inserted, seq, 0, id, "There is more than one row, or link, at this place."})
		return
	}
	if k.at.Count+1 < seq {
		k.report.Add(span(Missing, k.at.Count+1, seq-1, "What stood here is gone with its links; the row behind it cannot be checked by itself."))
		k.known = false
	}
	switch {
	case e == nil:
		k.report.Add(Finding{Missing, seq, 0, id, "The row is gone; its link is there."})
	case k.known && k.chain.Add(k.report.Chain, Head{seq - 1, k.at.Hash}, e).Hash != hash:
		k.report.Add(Finding{Changed, seq, 0, id, "The row or its place is not what was written."})
	}
	// Go on from what is stored, so that one changed row is one finding.
	k.at, k.known = Head{seq, hash}, true
	if k.anchor != nil && k.anchor.Count == seq && k.anchor.Hash != hash {
		k.report.Add(Finding{Anchor, seq, 0, id, "The row is another one than when the anchor was taken."})
	}
}

// Row takes each row there is, in the order of their times. seq is that of its
// link, 0 if it has none.
func (k *Check) Row(seq int64, id string, at time.Time) {
	if seq > 0 {
		k.behind = seq
		k.placed++
		return
	}
	k.report.Add(Finding{Inserted, k.behind, 0, id, fmt.Sprintf("The row of %s is not in the chain.", at.UTC().Format(time.RFC3339))})
}

// End returns what was found.
func (k *Check) End() Report {
	last := k.at.Count
	switch {
	case k.head == nil:
		k.report.Add(Finding{BadHead, last, 0, "", "The chain has no head: it was taken away, or the chain has not begun yet."})
	case !k.chain.Sealed(k.report.Chain, *k.head, k.seal):
		k.report.Add(Finding{BadHead, k.head.Count, 0, "", "The head was not sealed by a gateway with this master key."})
	case k.head.Count > last:
		k.report.Add(span(Cut, last+1, k.head.Count, "The end of the chain was taken off."))
	case k.head.Count < last:
		k.report.Add(span(Inserted, k.head.Count+1, last, "There are links behind the head."))
	case k.head.Hash != k.at.Hash:
		k.report.Add(Finding{Changed, last, 0, "", "The last link is not the one that the head stands for."})
	}
	if k.linked != k.placed {
		k.report.Add(Finding{Inserted, last, 0, "", fmt.Sprintf("There are %d rows for %d links.", k.placed, k.linked)})
	}
	if k.anchor != nil && k.anchor.Count > last {
		k.report.Add(span(Anchor, last+1, k.anchor.Count, "The chain was longer when the anchor was taken."))
	}
	return k.report
}
