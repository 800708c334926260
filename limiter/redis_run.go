package limiter

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"bulkhead/fault"
	"bulkhead/redisdb"
	"bulkhead/tenant"
)

// What Redis has may be lost at any moment: it is flushed, restarts, fails over
// to a replica that lags. A script sees that from two things: the epoch, which
// stands in each of a company's keys, and the id of the server's replication
// history, which is another then. Where they do not fit the company is closed.
//
// It is opened again in a new run of the server, which the registry has begun
// three heartbeats ago, so that every gateway that lives is in it, when each of
// them has said in that run what it has, in every company (pass). Then nothing is
// counted in the company, and is read from the Book when somebody asks.
//
// A gateway that comes later, because it was frozen or cut off, has an epoch that
// is not the company's, and says what it has before anything else (join).

// registryKey is the only key that is not a company's.
const registryKey = "bh:gateways"

// missedBeats is how many heartbeats a gateway may miss before it is dead.
const missedBeats = 3

var errLost = fault.New(fault.Unavailable, "The gateway was out of touch for too long and ended this call.").WithCode("call_ended")

// registry is what this gateway knows of the registry.
type registry struct {
	mu      sync.Mutex
	passed  run      // the last run for which it has said what it has
	over    []string // processes of which this one knows that they are over
	view    *registryView
	seen    time.Time // when view was got
	passing single
	joins   uint64
}

// run is the number of a run in the registry with that name.
type run struct {
	registry string
	number   int64
}

func (r run) String() string { return r.registry + "-" + strconv.FormatInt(r.number, 10) }

// registryView is what the registry said.
type registryView struct {
	verdict string
	last    run // of all servers
	lives   []string
	current run      // of the server that was asked about
	over    []string // processes, see Over
}

// consult asks the registry, and is a sign of life.
func (l *Redis) consult(ctx context.Context, what, servers, lost, company string) (*registryView, error) {
	g := &l.registry
	g.mu.Lock()
	passed, over := g.passed, strings.Join(g.over, " ")
	g.mu.Unlock()
	reply, err := l.c.Run(ctx, scriptRegistry, []string{registryKey}, []string{what, l.id, text((missedBeats * l.o.Heartbeat).Milliseconds()),
		passed.registry, text(passed.number), rand.Text()[:10], servers, lost, company, over})
	if err != nil {
		return nil, err
	}
	r := &reader{reply: reply}
	v := &registryView{verdict: r.text()}
	v.last = run{r.text(), r.int()}
	v.lives = r.list()
	v.current = run{v.last.registry, r.int()}
	for _, names := range r.list() {
		v.over = append(v.over, strings.Fields(names)...)
	}
	if r.bad != nil {
		return nil, r.bad
	}
	if what == "beat" {
		g.mu.Lock()
		g.view, g.seen = v, time.Now()
		g.mu.Unlock()
	}
	return v, nil
}

// keepRegistry is the heartbeat.
func (l *Redis) keepRegistry(ctx context.Context) {
	tick := time.NewTicker(l.o.Heartbeat)
	defer tick.Stop()
	for {
		if v, err := l.beat(ctx); err == nil && l.behindOf(v.last) {
			if l.pass(ctx, v.last) == nil {
				_, _ = l.beat(ctx) // the next one says it, too
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// beat is a sign of life. It names all servers there are, so that their runs
// begin before anybody needs them.
func (l *Redis) beat(ctx context.Context) (*registryView, error) {
	var servers []string
	for _, n := range l.c.Health().Nodes {
		servers = append(servers, n.Replication)
	}
	return l.consult(ctx, "beat", strings.Join(servers, " "), "", "")
}

func (l *Redis) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), l.o.Patience)
	defer cancel()
	_, _ = l.consult(ctx, "leave", "", "", "") // or it is missed three times
}

// Ready returns nil when this gateway is in the registry and a company that
// nobody has opened yet can be opened, else why not.
func (l *Redis) Ready() error {
	if err := l.c.Health().Fit(); err != nil {
		return err
	}
	g := &l.registry
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case len(l.c.Health().Nodes) == 0 || g.view == nil || time.Since(g.seen) > missedBeats*l.o.Heartbeat:
		return redisdb.ErrDown
	case g.view.verdict != "go":
		return errClosed
	}
	return nil
}

// behindOf reports whether the gateway has still to say what it has for a run.
func (l *Redis) behindOf(last run) bool {
	g := &l.registry
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passed.registry != last.registry || g.passed.number < last.number
}

// pass says in every company what the gateway has there.
func (l *Redis) pass(ctx context.Context, last run) error {
	g := &l.registry
	return l.once(ctx, &g.passing, func(ctx context.Context) error {
		if !l.behindOf(last) {
			return nil
		}
		companies := l.all(func(*redisCompany) bool { return true })
		defer func() {
			for _, o := range companies {
				l.done(o)
			}
		}()
		var all []*joining
		for _, o := range companies {
			if j := l.joining(o, last); j != nil {
				all = append(all, j)
			}
		}
		var failed error
		for some := range slices.Chunk(all, flushAtOnce) {
			calls := make([]redisdb.Call, len(some))
			for i, j := range some {
				calls[i] = redisdb.Call{Script: scriptJoin, Keys: j.o.keys, Args: j.args}
			}
			for i, result := range l.c.RunAll(ctx, l.long(), calls) {
				failed = errors.Join(failed, l.joined(some[i], result.Reply, result.Err))
			}
		}
		if failed == nil {
			g.mu.Lock()
			g.passed = last
			g.mu.Unlock()
		}
		return failed
	})
}

// join says in one company what the gateway has there.
func (l *Redis) join(ctx context.Context, o *redisCompany) error {
	return l.once(ctx, &o.joining, func(ctx context.Context) error {
		g := &l.registry
		g.mu.Lock()
		passed := g.passed
		g.mu.Unlock()
		j := l.joining(o, passed)
		if j == nil {
			return nil // there is nothing any more
		}
		reply, err := l.runLong(ctx, scriptJoin, o, j.args)
		if err = l.joined(j, reply, err); err == errMore {
			return nil // whoever asks next joins again
		}
		return err
	})
}

// runLong runs a script that looks at all attempts of a company, of which there
// may be many.
func (l *Redis) runLong(ctx context.Context, s *redisdb.Script, o *redisCompany, args []string) (any, error) {
	r := l.c.RunAll(ctx, l.long(), []redisdb.Call{{Script: s, Keys: o.keys, Args: args}})[0]
	return r.Reply, r.Err
}

// joining is all that the gateway has of a company while Redis is told.
type joining struct {
	o        *redisCompany
	args     []string
	believed string
	inserted uint64
	unknown  bool // Redis may not know it yet
}

// joining returns nil where there is nothing.
func (l *Redis) joining(o *redisCompany, last run) *joining {
	g := &l.registry
	g.mu.Lock()
	g.joins++
	number := g.joins
	g.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	j := &joining{o: o, believed: o.believed(), inserted: o.inserted}
	j.args = append(l.head(j.believed), strconv.FormatUint(number, 10), last.registry, text(last.number))
	said := false
	for _, at := range o.attempts {
		state, amount, tokens := "h", at.nano, at.need.tokens
		switch {
		case at.state == attemptVoid:
			continue
		case at.state == attemptAsked:
			state = "?"
		case at.settled:
			state, amount, tokens = "e", at.used.Nano, at.used.Tokens
		}
		said = true
		j.args = append(j.args, at.id, state, text(at.at), text(amount), text(tokens), text(at.need.requests),
			at.by.Project, at.by.Key, at.by.Agent, at.by.User, flag(at.by.Lent), flag(at.entry), flag(!at.released), at.claim, strconv.Itoa(len(at.fields)))
		j.args = append(j.args, at.fields...)
	}
	if !said {
		return nil
	}
	if j.unknown = j.believed == "" || j.believed == unknownEpoch; j.unknown {
		o.saying++
	}
	return j
}

// errMore says that attempts were taken while all was said, and lost data since.
var errMore = errors.New("there is more to say of the company by now")

// joined takes in what Redis said to it.
func (l *Redis) joined(j *joining, reply any, err error) error {
	o := j.o
	r := &reader{reply: reply}
	what := ""
	if err == nil {
		if what = r.text(); what != "ok" {
			err = unexpected(what)
		}
	}
	epoch := ""
	var gone []string
	if err == nil {
		epoch, gone = r.text(), r.texts()
	}
	o.mu.Lock()
	if j.unknown {
		o.saying--
	}
	if err == nil {
		o.joins++
		more := o.inserted != j.inserted
		if more && (epoch != j.believed || o.epoch == "") {
			o.epoch, err = "", errMore
		} else {
			o.epoch = epoch
		}
	}
	o.mu.Unlock()
	l.loseAll(o, gone)
	return err
}

// reopen opens a company that is closed, if all that live have said what they
// have. nil says that it is worth asking again.
func (l *Redis) reopen(ctx context.Context, o *redisCompany, c *closedCompany) error {
	return l.once(ctx, &o.opening, func(ctx context.Context) error {
		if time.Now().Before(o.retryOpen) {
			return errClosed
		}
		lost := ""
		switch {
		case c.why == "lost" && c.epoch != "":
			lost = runOf(c.epoch)
		case c.why != "moved" && o.doubt != "" && c.asked.After(o.doubted):
			lost, o.doubt = o.doubt, ""
		}
		v, err := l.consult(ctx, "claim", c.server, lost, o.id.String())
		if err == nil && l.behindOf(v.last) {
			if err = l.pass(ctx, v.last); err == nil {
				v, err = l.consult(ctx, "claim", c.server, "", o.id.String())
			}
		}
		if err != nil {
			return err
		}
		switch v.verdict {
		case "open":
			// Somebody has opened it since, or its keys have gone: the next look
			// tells which.
			o.doubt, o.doubted = v.current.String(), time.Now()
			return nil
		case "go":
			return l.openCompany(ctx, o, c, v)
		}
		o.retryOpen = time.Now().Add(l.o.Heartbeat / 10)
		return errClosed
	})
}

func (l *Redis) openCompany(ctx context.Context, o *redisCompany, c *closedCompany, v *registryView) error {
	epoch := c.server + "." + v.current.String() + "." + rand.Text()[:8]
	args := append(l.head(""), epoch, v.current.registry, text(v.current.number), text(l.newest.Load()))
	reply, err := l.runLong(ctx, scriptOpen, o, append(args, v.lives...))
	if err != nil {
		return err
	}
	r := &reader{reply: reply}
	if r.text() != "ok" {
		return errClosed // the server is another by now
	}
	_, err = l.consult(ctx, "open", c.server, "", o.id.String())
	return err
}

// runOf is the run in which a company got its epoch.
func runOf(epoch string) string {
	_, rest, _ := strings.Cut(epoch, ".")
	token, _, _ := strings.Cut(rest, ".")
	return token
}

// Forget drops all that Redis has of a company, for good: it must have no work
// any more, in no gateway.
func (l *Redis) Forget(ctx context.Context, s tenant.Scope) error {
	o := l.enter(s.ID())
	defer l.done(o)
	if _, err := l.c.Do(ctx, append([]string{"DEL"}, o.keys...)...); err != nil {
		return l.away(err)
	}
	if _, err := l.consult(ctx, "forget", "", "", o.id.String()); err != nil {
		return l.away(err)
	}
	return nil
}
