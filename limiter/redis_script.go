package limiter

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"bulkhead/redisdb"
	"bulkhead/tenant"
)

//go:embed redis_common.lua
var luaCommon string

//go:embed redis_hold.lua
var luaHold string

//go:embed redis_stand.lua
var luaStand string

//go:embed redis_begin.lua
var luaBegin string

//go:embed redis_count.lua
var luaCount string

//go:embed redis_flush.lua
var luaFlush string

//go:embed redis_join.lua
var luaJoin string

//go:embed redis_open.lua
var luaOpen string

//go:embed redis_tidy.lua
var luaTidy string

//go:embed redis_swept.lua
var luaSwept string

//go:embed redis_registry.lua
var luaRegistry string

// The scripts. All but the last one are about one company.
var (
	scriptHold     = redisdb.NewScript(luaCommon + luaHold)
	scriptStand    = redisdb.NewScript(luaCommon + luaStand)
	scriptBegin    = redisdb.NewScript(luaCommon + luaBegin)
	scriptCount    = redisdb.NewScript(luaCommon + luaCount)
	scriptFlush    = redisdb.NewScript(luaCommon + luaFlush)
	scriptJoin     = redisdb.NewScript(luaCommon + luaJoin)
	scriptOpen     = redisdb.NewScript(luaCommon + luaOpen)
	scriptTidy     = redisdb.NewScript(luaCommon + luaTidy)
	scriptSwept    = redisdb.NewScript(luaCommon + luaSwept)
	scriptRegistry = redisdb.NewScript(luaRegistry)
)

const (
	// largest is where an amount in Redis stands still: Lua counts exactly up to
	// 2^53, some 9,007,199 USD in nano-USD.
	largest = 1<<53 - 1

	// In Redis the beginning of the whole time is 0 and its end largest+1.
	redisForever = largest + 1

	// unknownEpoch is what a gateway says that has something Redis may not know.
	unknownEpoch = "?"
)

// The fields of the counts, see redis_common.lua.

func limitField(l *tenant.Limited) string {
	return "r" + strconv.Itoa(len(l.Kind)) + ":" + l.Kind + l.ID
}

var ownerFields = [kinds]string{ofCompany: "oc", ofProject: "op", ofKey: "ok", ofAgent: "oa", ofUser: "ou", ofCeiling: "ol"}

func ownerField(b *tenant.Budget) string {
	k, id := ownerOf(b)
	return ownerFields[k] + id
}

var unitNames = map[tenant.Unit]string{tenant.USD: "u", tenant.Tokens: "t", tenant.Requests: "r"}

func text(n int64) string { return strconv.FormatInt(n, 10) }

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// head is what the arguments of every script about a company begin with.
func (l *Redis) head(epoch string) []string {
	return []string{l.now(), l.id, epoch, text(l.o.Lease.Microseconds())}
}

// believed is the epoch by which Redis knows what is here: "" if there is
// nothing. The caller holds the lock.
func (o *redisCompany) believed() string {
	switch {
	case o.taken == 0:
		return ""
	case o.epoch == "":
		return unknownEpoch
	}
	return o.epoch
}

// moment is what Redis' clock says now, as far as is known here.
func (l *Redis) moment() int64 { return l.o.Now().UnixMicro() + l.offset.Load() }

func redisSpan(from, to int64) (int64, int64) {
	if from == ever {
		from = 0
	}
	return from, min(to, redisForever)
}

// redisPeriods are a company's periods around now, and the ones after.
type redisPeriods struct {
	known map[periodKey]*nextPeriods
}

type periodKey struct {
	calendar *tenant.Calendar
	period   tenant.Period
}

type nextPeriods struct {
	since, from, to, after int64
	text                   [3]string
}

// of returns the beginnings of the period that holds at, of the next and of the
// one after. The caller holds the company's lock.
func (p *redisPeriods) of(b *tenant.Budget, at int64) []string {
	k := periodKey{b.Calendar, b.Period}
	if n := p.known[k]; n != nil && n.since <= at && at < n.to {
		return n.text[:]
	}
	n := &nextPeriods{since: at}
	n.from, n.to = spanOf(b, at)
	n.after = n.to
	if n.to != forever {
		_, n.after = spanOf(b, n.to)
	}
	n.from, n.to = redisSpan(n.from, n.to)
	_, n.after = redisSpan(0, n.after)
	n.text = [3]string{text(n.from), text(n.to), text(n.after)}
	if p.known == nil || len(p.known) >= 4*maxPeriods {
		p.known = map[periodKey]*nextPeriods{}
	}
	p.known[k] = n
	return n.text[:]
}

// holdArgs are the arguments of the script for the attempt. The caller holds
// the company's lock.
func (h *holding) args(o *redisCompany, at *redisAttempt) []string {
	l, by, a := h.l, &at.by, h.ask
	args := append(make([]string, 0, 19+4*len(at.fields)+6*len(a.Budgets)), l.now(), l.id, o.believed(), text(l.o.Lease.Microseconds()))
	args = append(args, at.id, flag(at.entry), text(h.need.requests), text(h.need.tokens), text(h.need.nano), text(h.need.least),
		by.Project, by.Key, by.Agent, by.User, flag(by.Lent), strconv.Itoa(l.o.MaxWindowsPerCompany), strconv.Itoa(len(at.fields)))
	for i, field := range at.fields {
		var w window
		w.adopt(h.limited(i).Limits, 0)
		args = append(args, field, text(w.limits.RequestsPerMinute), text(w.limits.TokensPerMinute), text(min(w.limits.Concurrent, maxLimit)))
	}
	args = append(args, strconv.Itoa(len(a.Budgets)))
	now := l.moment()
	for _, b := range a.Budgets {
		args = append(args, ownerField(b), unitNames[b.Unit], text(min(max(b.Limit, 0), tenant.MaxBudget)))
		args = append(args, o.periods.of(b, now)...)
	}
	return append(args, at.claim)
}

// closedCompany is why Redis does not know a company.
type closedCompany struct {
	asked  time.Time
	server string // its replication id
	why    string // "new", "lost" or "moved"
	epoch  string // what is left of it
}

func (r *reader) closed(asked time.Time) *closedCompany {
	return &closedCompany{asked, r.text(), r.text(), r.text()}
}

// uncounted is a budget, by place, and the period of it that is to be read.
type uncounted struct {
	place    int
	from, to int64
}

// redisCount is a period's count in Redis.
type redisCount struct {
	count
	known bool
}

// holdReply is what Redis says about an attempt.
type holdReply struct {
	what    string
	at      int64
	windows []window
	counts  []redisCount

	closed    *closedCompany
	uncounted []uncounted
}

// send asks Redis once. Whether the attempt is held then, or may be, is noted.
func (h *holding) send(ctx context.Context, o *redisCompany, at *redisAttempt) (*holdReply, error) {
	l := h.l
	o.mu.Lock()
	args, joins, saying := h.args(o, at), o.joins, o.saying > 0
	o.mu.Unlock()
	asked := time.Now()
	reply, err := l.c.Run(ctx, scriptHold, o.keys, args)
	r := &reader{reply: reply}
	answer := &holdReply{what: r.text()}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		if _, answered := errors.AsType[*redisdb.Answer](err); !answered {
			at.state = attemptVoid
		}
		return nil, err
	}
	switch answer.what {
	case "held":
		answer.at = r.int()
		epoch, nano := r.text(), r.int()
		switch {
		case saying || joins != o.joins && o.epoch != epoch:
			// What was said of the company was said without it.
			at.state = attemptVoid
			return nil, errVoid
		case o.taken == 0:
			o.epoch = epoch
		case o.epoch != epoch:
			o.epoch = "" // the company was opened anew in between
		}
		o.used = Allowance{}
		l.take(o, at, answer.at, nano)
		h.windows(r, answer)
	case "full":
		answer.at = r.int()
		r.text()
		r.int()
		h.windows(r, answer)
	case "count":
		r.text()
		answer.uncounted = r.uncounted()
	case "clock":
		answer.at = r.int()
	case "closed":
		answer.closed = r.closed(asked)
	}
	if r.bad != nil {
		return nil, r.bad
	}
	return answer, nil
}

// windows reads the state of limits and budgets.
func (h *holding) windows(r *reader, answer *holdReply) {
	n := len(h.ask.Limits)
	if h.ask.Model != nil {
		n++
	}
	answer.windows = make([]window, n)
	for i := range answer.windows {
		w := &answer.windows[i]
		w.adopt(h.limited(i).Limits, 0)
		w.requests.used, w.requests.part = r.int(), r.int()*microsecond
		w.tokens.used, w.tokens.part = r.int(), r.int()*microsecond
		r.int() // when
		w.held, w.open = r.int(), r.int()
	}
	answer.counts = make([]redisCount, len(h.ask.Budgets))
	for i := range answer.counts {
		c := &answer.counts[i]
		from, to := r.int(), r.int()
		c.known = r.int() == 1
		r.count(&c.count, from, to)
	}
}

// microsecond is in ns: buckets in Redis have the time in microseconds.
const microsecond = int64(time.Microsecond)

// reader reads the parts of a reply in order.
type reader struct {
	reply any
	parts []any
	begun bool
	bad   error
}

func (r *reader) next() any {
	if !r.begun {
		r.begun = true
		r.parts, _ = r.reply.([]any)
	}
	if len(r.parts) == 0 {
		r.bad = fmt.Errorf("redis answered too little: %.60q", fmt.Sprint(r.reply))
		return nil
	}
	p := r.parts[0]
	r.parts = r.parts[1:]
	return p
}

func (r *reader) more() bool { return r.begun && len(r.parts) > 0 }

func (r *reader) text() string {
	s, _ := r.next().(string)
	return s
}

func (r *reader) int() int64 {
	n, ok := r.next().(int64)
	if !ok && r.bad == nil {
		r.bad = errors.New("redis answered no number where one is due")
	}
	return n
}

// texts reads the rest.
func (r *reader) texts() (all []string) {
	for r.more() {
		all = append(all, r.text())
	}
	return all
}

// list reads a list of texts.
func (r *reader) list() (all []string) {
	inner := &reader{reply: r.next(), begun: true}
	inner.parts, _ = inner.reply.([]any)
	return inner.texts()
}

func (r *reader) uncounted() (all []uncounted) {
	for r.more() {
		all = append(all, uncounted{int(r.int()) - 1, r.int(), r.int()})
	}
	return all
}

func (r *reader) count(c *count, from, to int64) {
	c.from, c.to = from, to
	if from == 0 {
		c.from = ever
	}
	if to == redisForever {
		c.to = forever
	}
	c.used = Used{Nano: r.int(), Tokens: r.int(), Requests: r.int()}
	c.held = Used{Nano: r.int(), Tokens: r.int()}
}

// outage is what becomes of a Hold when Redis cannot decide: a refusal, or what
// the company may use without a decision.
func (h *holding) outage(o *redisCompany, at *redisAttempt, cause error) error {
	l := h.l
	if l.o.Allow == nil || at.by.Lent || errors.Is(cause, errVoid) {
		return l.away(cause)
	}
	allowance := l.o.Allow(h.s)
	o.mu.Lock()
	defer o.mu.Unlock()
	rest := min(max(allowance.Nano, 0), math.MaxInt64/2) - o.used.Nano
	if o.used.Requests >= allowance.Requests || h.need.least > max(rest, 0) {
		return l.away(cause)
	}
	nano := min(h.need.nano, max(rest, 0))
	o.used.Nano += nano
	o.used.Requests++
	o.epoch = "" // Redis is told when it is back
	l.take(o, at, l.moment(), nano)
	h.state = State{HasBudget: h.hasBudget(), RemainingNano: rest - nano}
	l.allowed.Add(1)
	return nil
}

func (h *holding) hasBudget() bool {
	for _, b := range h.ask.Budgets {
		if b.Unit == tenant.USD {
			return true
		}
	}
	return false
}
