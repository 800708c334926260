package web

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/tenant"
)

// UpkeepStore gives out what the gateways do for companies by themselves, and has
// the parts of it that need nothing else.
type UpkeepStore interface {
	// TakeUpkeep returns work of a kind that is due, of those companies whose work
	// has been due for longest. Nobody else gets it for as long as the lease, and
	// it is given out again after that if it was not ended.
	TakeUpkeep(ctx context.Context, kind string, lease time.Duration) (u tenant.Upkeep, ok bool, err error)
	// EndUpkeep says when the work is due again; zero: when it is asked for. What
	// was asked for while it was done stays due.
	EndUpkeep(ctx context.Context, u tenant.Upkeep, next time.Time) error

	// RollUp adds up the company's entries by day, and deletes those past their time.
	RollUp(ctx context.Context, s tenant.Scope, o ledger.RollupOptions) (ledger.Rolled, error)
	// SweepKept deletes the company's calls with an Idempotency-Key, and what is
	// known of its responses, whose time is over, and returns when to come again.
	SweepKept(ctx context.Context, s tenant.Scope, now time.Time) (next time.Time, err error)
	// SweepMemory deletes the company's conversations that nothing was added to for
	// so many days, or for those that the company has chosen, and returns when to
	// come again.
	SweepMemory(ctx context.Context, s tenant.Scope, now time.Time, days int64) (next time.Time, err error)
	// CheckAlerts makes an event for each alert whose amount is spent and that has
	// none for it in this month, and asks for its delivery.
	CheckAlerts(ctx context.Context, s tenant.Scope, now time.Time) error
	// Deliveries returns events that are due, and when the next one is or was due;
	// zero: there is none.
	Deliveries(ctx context.Context, s tenant.Scope, now time.Time, limit int) (due []tenant.SpendDelivery, next time.Time, err error)
	// DeliveryTried stores what came of an attempt, unless it was delivered already.
	DeliveryTried(ctx context.Context, s tenant.Scope, e tenant.SpendEvent) error
}

// UpkeepOptions are how the work is done. Zero values take the defaults.
type UpkeepOptions struct {
	// Keep is for how long after their day entries are kept; 0: for ever.
	Keep time.Duration
	// Every is how often work is looked for when there is none; default 1 s.
	Every time.Duration
	// Retries is how long after each failed attempt at a webhook the next one comes;
	// default up to 12 hours later.
	Retries []time.Duration
	// Failed is called when work of a kind begins to fail (with why), and when it
	// works again (with nil).
	Failed func(kind string, err error)
}

// Upkeep does what there is to do for companies in the background, one company at a
// time in the order in which it is due, so that none waits for another with more.
type Upkeep struct {
	g      *Gateway
	store  UpkeepStore
	o      UpkeepOptions
	hooks  *webhooks
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// upkeepKinds are how each kind of work is done: how many at a time, and for how
// long it is lent.
var upkeepKinds = map[string]struct {
	atOnce int
	lease  time.Duration
	do     func(u *Upkeep, ctx context.Context, s tenant.Scope) (next time.Time, err error)
}{
	tenant.RollUp:      {1, 30 * time.Minute, (*Upkeep).rollUp},
	tenant.CheckAlerts: {1, time.Minute, (*Upkeep).checkAlerts},
	tenant.SweepKept: {1, time.Minute, func(u *Upkeep, ctx context.Context, s tenant.Scope) (time.Time, error) {
		return u.store.SweepKept(ctx, s, u.g.now())
	}},
	tenant.SweepMemory: {1, 5 * time.Minute, func(u *Upkeep, ctx context.Context, s tenant.Scope) (time.Time, error) {
		return u.store.SweepMemory(ctx, s, u.g.now(), u.g.settings.Load().Memory.Days)
	}},
	tenant.Deliver: {8, 2 * time.Minute, (*Upkeep).deliver},
	tenant.Ingest:  {1, 30 * time.Second, (*Upkeep).ingest},
}

// StartUpkeep begins with the work, until Close.
func (g *Gateway) StartUpkeep(store UpkeepStore, o UpkeepOptions) *Upkeep {
	if o.Every <= 0 {
		o.Every = time.Second
	}
	if o.Retries == nil {
		o.Retries = webhookRetries
	}
	if o.Failed == nil {
		o.Failed = func(string, error) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	u := &Upkeep{g: g, store: store, o: o, hooks: newWebhooks(), cancel: cancel}
	for kind := range upkeepKinds {
		if kind == tenant.Ingest && g.Knowledge == nil {
			continue
		}
		u.ended.Go(func() { u.run(ctx, kind) })
	}
	return u
}

// Close ends the work that is under way, which is then due, and waits for that. It
// is safe to call twice.
func (u *Upkeep) Close() error {
	u.cancel()
	u.ended.Wait()
	u.hooks.close()
	return nil
}

// run takes work of a kind until ctx is over.
func (u *Upkeep) run(ctx context.Context, kind string) {
	k := upkeepKinds[kind]
	slots := make(chan struct{}, k.atOnce)
	failing := false
	report := func(err error) {
		if ctx.Err() == nil && (err != nil) != failing {
			failing = err != nil
			u.o.Failed(kind, err)
		}
	}
	var mu sync.Mutex // of report
	var working sync.WaitGroup
	defer working.Wait()
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		w, ok, err := u.store.TakeUpkeep(ctx, kind, k.lease)
		if err != nil || !ok {
			<-slots
			if err != nil {
				mu.Lock()
				report(err)
				mu.Unlock()
			}
			select { // not all gateways at once
			case <-time.After(u.o.Every/2 + rand.N(u.o.Every)):
				continue
			case <-ctx.Done():
				return
			}
		}
		working.Go(func() {
			defer func() { <-slots }()
			err := u.one(ctx, w)
			mu.Lock()
			defer mu.Unlock()
			report(err)
		})
	}
}

// endTimeout bounds what is written after the gateway was told to stop.
const endTimeout = 5 * time.Second

// one does one piece of work. What fails is tried again when its lease is over.
func (u *Upkeep) one(ctx context.Context, w tenant.Upkeep) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
	}()
	k := upkeepKinds[w.Kind]
	working, cancel := context.WithTimeout(ctx, k.lease)
	defer cancel()
	next := time.Time{}
	s, err := u.g.Tenants.Background(working, w)
	switch {
	case fault.Is(err, fault.NotFound): // erased: there is nothing to be done any more
	case err != nil:
		return err
	default:
		if next, err = k.do(u, working, s); err != nil && ctx.Err() == nil {
			return err
		}
		if err != nil {
			next = u.g.now() // stopped: somebody else goes on
		}
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	return u.store.EndUpkeep(ending, w, next)
}

func (u *Upkeep) rollUp(ctx context.Context, s tenant.Scope) (time.Time, error) {
	done, err := u.store.RollUp(ctx, s, ledger.RollupOptions{Now: u.g.now(), Keep: u.o.Keep})
	return done.Next, err
}

func (u *Upkeep) checkAlerts(ctx context.Context, s tenant.Scope) (time.Time, error) {
	return time.Time{}, u.store.CheckAlerts(ctx, s, u.g.now())
}

// perTurn is how many events of one company are sent before another's turn.
const perTurn = 2

func (u *Upkeep) deliver(ctx context.Context, s tenant.Scope) (next time.Time, err error) {
	due, _, err := u.store.Deliveries(ctx, s, u.g.now(), perTurn)
	if err != nil {
		return next, err
	}
	allowPrivate := u.g.settings.Load().AllowPrivate
	for i := range due {
		status := u.hooks.send(ctx, &due[i], u.g.webhookKey(s, due[i].Event.Alert), u.g.now(), allowPrivate)
		if ctx.Err() != nil && status == 0 {
			return next, ctx.Err() // it was not the receiver that failed
		}
		writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		err := u.store.DeliveryTried(writing, s, tried(due[i].Event, status, u.g.now(), u.o.Retries))
		cancel()
		if err != nil {
			return next, err
		}
	}
	_, next, err = u.store.Deliveries(ctx, s, u.g.now(), 1)
	return next, err
}
