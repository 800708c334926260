package audit

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"bulkhead/tenant"
)

// Sink is where a Tally writes.
type Sink interface {
	// AppendAudit adds the rows to the company's chain in their order, all or
	// none. At and ID are the Sink's to set. A company that is not there, or was
	// erased, is tenant.ErrNotFound.
	AppendAudit(ctx context.Context, company tenant.ID, rows []Event) error
	// KnownKeys returns which of the ids are keys of the company, revoked ones
	// included.
	KnownKeys(ctx context.Context, company tenant.ID, ids []string) ([]string, error)
}

// Tally counts refused access and reads of content, and writes one row for each
// key, route (or kind of content) and minute. Counting is a look into a map: the
// rows are written in the background once the minute is over, and at Close.
//
// What it holds is bounded in total and for each company. Beyond its share a
// company's further keys and routes are counted together, in a row whose object
// is "*". What a process that is killed has counted and not written is lost.
//
// A nil *Tally counts nothing.
type Tally struct {
	sink   Sink
	o      TallyOptions
	cancel context.CancelFunc
	ended  chan struct{}
	last   sync.Mutex // held by the one that writes after the end

	mu        sync.Mutex
	counts    map[slot]*count
	companies map[tenant.ID]*share
	closed    bool
	stats     TallyStats
}

// TallyOptions bound a Tally. Zero values take the defaults.
type TallyOptions struct {
	Total      int // rows counted at a time, of all companies; default 16,384
	PerCompany int // of one company; default 256
	// Unproved is how many of one company's rows may be about keys that only
	// name the company, as anybody can; default 8.
	Unproved int
	Every    time.Duration // between looks for minutes that are over; default 5 s
	Timeout  time.Duration // of writing one company's rows; default 10 s
	// Failed is called when writing begins to fail (with why), and when it works
	// again (with nil).
	Failed func(error)
	Now    func() time.Time // default time.Now
}

// TallyStats are sums since the start.
type TallyStats struct {
	Written int64 // rows
	Lost    int64 // acts that no row tells of, for want of room or after Close
}

// slot is what one row is about.
type slot struct {
	caller Caller
	typ    Type
	object string
	minute int64 // Unix time of its beginning
}

type count struct {
	n     int64
	codes map[string]int64 // why access was refused; nil for reads
}

// share is what a company has in a Tally.
type share struct{ all, unproved int }

// NewTally returns a Tally that writes to sink until Close.
func NewTally(sink Sink, o TallyOptions) *Tally {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&o.Total, 16_384)
	set(&o.PerCompany, 256)
	set(&o.Unproved, 8)
	if o.Every <= 0 {
		o.Every = 5 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &Tally{sink: sink, o: o, cancel: cancel, ended: make(chan struct{}), counts: map[slot]*count{}, companies: map[tenant.ID]*share{}}
	go t.run(ctx)
	return t
}

// Denied counts a refusal of access. route and code are the gateway's own words,
// never the request's.
func (t *Tally) Denied(c Caller, route, code string) { t.add(c, AccessDenied, route, code) }

// LoginFailed counts a password that was not that of the user with this id; ""
// for a user that is not there. Who tried is not known.
func (t *Tally) LoginFailed(company tenant.ID, user string) {
	t.add(Caller{Company: company}, LoginFailed, user, "login_failed")
}

// Read counts that stored content was handed out, and of which kind.
func (t *Tally) Read(c Caller, kind string) { t.add(c, ContentRead, kind, "") }

// Stats returns what was done so far.
func (t *Tally) Stats() TallyStats {
	if t == nil {
		return TallyStats{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stats
}

// rest is the object of the row that counts what had no room of its own.
const rest = "*"

func (t *Tally) add(c Caller, typ Type, object, code string) {
	if t == nil {
		return
	}
	minute := t.o.Now().Truncate(time.Minute).Unix()
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.place(slot{c, typ, object, minute})
	if at == nil {
		t.stats.Lost++
		return
	}
	at.n++
	if code == "" {
		return
	}
	if at.codes == nil {
		at.codes = map[string]int64{}
	}
	if _, there := at.codes[code]; !there && len(at.codes) >= maxCodes {
		code = rest
	}
	at.codes[code]++
}

// maxCodes bounds the reasons that one row tells apart.
const maxCodes = 16

// place returns the count for s, or for the rest of its company; nil if there is
// no room for either.
func (t *Tally) place(s slot) *count {
	if t.closed {
		return nil
	}
	if at := t.counts[s]; at != nil {
		return at
	}
	of := t.companies[s.caller.Company]
	full := len(t.counts) >= t.o.Total
	if of != nil {
		full = full || of.all >= t.o.PerCompany || !s.caller.Proved && of.unproved >= t.o.Unproved
	}
	if full {
		s = slot{Caller{Company: s.caller.Company}, s.typ, rest, s.minute}
		if at := t.counts[s]; at != nil {
			return at
		}
		// One row for the rest fits beside a full share, if it is not one of the
		// many minutes in which nothing could be written.
		if of == nil || of.all >= 2*t.o.PerCompany || len(t.counts) >= 2*t.o.Total {
			return nil
		}
	}
	if of == nil {
		of = &share{}
		t.companies[s.caller.Company] = of
	}
	of.all++
	if !s.caller.Proved {
		of.unproved++
	}
	at := &count{}
	t.counts[s] = at
	return at
}

// Close stops the counting and writes what is left, until ctx is over. It is
// safe to call twice.
func (t *Tally) Close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	select {
	case <-t.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	t.last.Lock()
	defer t.last.Unlock()
	return t.write(ctx, t.due(1<<62))
}

func (t *Tally) run(ctx context.Context) {
	defer close(t.ended)
	tick := time.NewTicker(t.o.Every)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := t.write(ctx, t.due(t.o.Now().Truncate(time.Minute).Unix()))
		if ctx.Err() != nil {
			return
		}
		if (err != nil) != failing {
			t.o.Failed(err)
		}
		failing = err != nil
	}
}

// due returns the slots of minutes before the given one, by company. They are
// not counted in any more, but for a clock that went back.
func (t *Tally) due(before int64) map[tenant.ID][]slot {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := map[tenant.ID][]slot{}
	for s := range t.counts {
		if s.minute < before {
			found[s.caller.Company] = append(found[s.caller.Company], s)
		}
	}
	return found
}

// maxFailures is how many companies' rows in a row may fail before the store is
// taken to be away.
const maxFailures = 3

// write writes the rows of each company by itself, so that one whose rows are
// not taken holds up no other. What could not be written stays counted.
func (t *Tally) write(ctx context.Context, due map[tenant.ID][]slot) error {
	var errs []error
	failures := 0
	for company, slots := range due {
		if failures == maxFailures {
			break
		}
		err := t.writeCompany(ctx, company, slots)
		switch {
		case err == nil:
			failures = 0
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			failures++
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (t *Tally) writeCompany(ctx context.Context, company tenant.ID, slots []slot) error {
	ctx, cancel := context.WithTimeout(ctx, t.o.Timeout)
	defer cancel()
	taken := t.take(slots)
	known, err := t.known(ctx, company, slots)
	if err == nil {
		err = t.sink.AppendAudit(ctx, company, events(taken, known))
	}
	switch {
	case errors.Is(err, tenant.ErrNotFound): // nobody's any more
		t.drop(company, taken, false)
		return nil
	case err != nil:
		return err
	}
	t.drop(company, taken, true)
	return nil
}

// take copies the counts of the slots, as they now are.
func (t *Tally) take(slots []slot) map[slot]count {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := make(map[slot]count, len(slots))
	for _, s := range slots {
		at := t.counts[s]
		c := count{n: at.n}
		for code, n := range at.codes {
			if c.codes == nil {
				c.codes = make(map[string]int64, len(at.codes))
			}
			c.codes[code] = n
		}
		taken[s] = c
	}
	return taken
}

// drop forgets what was written, or has nowhere to be written to.
func (t *Tally) drop(company tenant.ID, taken map[slot]count, written bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.companies[company]
	for s, c := range taken {
		at := t.counts[s]
		if at.n -= c.n; at.n > 0 { // counted in meanwhile
			for code, n := range c.codes {
				if at.codes[code] -= n; at.codes[code] == 0 {
					delete(at.codes, code)
				}
			}
			continue
		}
		delete(t.counts, s)
		of.all--
		if !s.caller.Proved {
			of.unproved--
		}
		if written {
			t.stats.Written++
		} else {
			t.stats.Lost += c.n
		}
	}
	if of.all == 0 {
		delete(t.companies, company)
	}
}

// known returns which of the keys that were only named the company has or had.
// Somebody who makes keys up must not fill the log with their names.
func (t *Tally) known(ctx context.Context, company tenant.ID, slots []slot) ([]string, error) {
	var ids []string
	for _, s := range slots {
		if id := s.caller.KeyID; !s.caller.Proved && id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	return t.sink.KnownKeys(ctx, company, ids)
}

// events makes rows of counts, in an order that does not depend on chance.
func events(taken map[slot]count, known []string) []Event {
	type merged struct {
		e      Event
		minute int64
		codes  map[string]int64
	}
	rows := map[string]*merged{}
	for s, c := range taken {
		e := Event{Type: s.typ, Actor: actor(s.caller, known), ProjectID: s.caller.Project, Object: s.object}
		m := merged{e, s.minute, map[string]int64{}}
		name := strings.Join([]string{time.Unix(s.minute, 0).UTC().Format(time.RFC3339), string(e.Type), e.Actor, e.ProjectID, e.Object}, "\x00")
		if rows[name] == nil { // else they are about keys that nobody ever had
			rows[name] = &m
		}
		rows[name].e.Count += c.n
		for code, n := range c.codes {
			rows[name].codes[code] += n
		}
	}
	names := make([]string, 0, len(rows))
	for name := range rows {
		names = append(names, name)
	}
	slices.Sort(names)
	out := make([]Event, 0, len(rows))
	for _, name := range names {
		m := rows[name]
		m.e.Detail = detail(m.minute, m.codes)
		out = append(out, m.e)
	}
	return out
}

func actor(c Caller, known []string) string {
	switch {
	case c.Proved && c.User != "":
		return ByUser + c.User
	case c.Proved:
		return ByKey + c.KeyID
	case slices.Contains(known, c.KeyID):
		return ByClaim + c.KeyID
	}
	return Unknown
}

// detail is what a row says beside its count.
func detail(minute int64, codes map[string]int64) string {
	b, err := json.Marshal(struct {
		Minute int64            `json:"minute"`          // Unix time
		Codes  map[string]int64 `json:"codes,omitempty"` // of the errors, and how often each
	}{minute, codes})
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return string(b)
}
