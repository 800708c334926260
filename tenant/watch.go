package tenant

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"bulkhead/fault"
)

// Feed tells which companies' policy changed, whoever changed it.
type Feed interface {
	// Changes returns the ids of the companies whose policy changed after the
	// given generation, and the last generation there is. A change is seen only
	// when all with a lower generation are.
	Changes(ctx context.Context, after int64) (companies []string, last int64, err error)
}

// Watch is how a Directory learns of changes that another gateway made, and how
// it knows that it would have learned of them.
type Watch struct {
	// Every is how often the feed is asked; default 1 s.
	Every time.Duration
	// MaxStale is how long what is in memory is trusted while the feed cannot
	// be asked; default 5 minutes. After that every key is refused with 503.
	MaxStale time.Duration
	// Changed is called with each company that changed, after the Directory has
	// forgotten it. If it cannot do what the change asks for it returns false, and
	// is called again after the next answer of the feed.
	Changed func(company string) (done bool)
	// Failed is called when the feed begins to fail (with why), and when it
	// answers again (with nil).
	Failed func(err error)
}

// watching is the state of a Directory that is watched.
type watching struct {
	maxStale time.Duration
	asked    atomic.Int64 // when the feed was last asked with success, unix ns; 0: not watched
}

// Follow asks feed for changes until ctx is over. It begins with what there is:
// call it before the first key is looked at. It returns an error only if the
// feed cannot be asked at the beginning.
func (d *Directory) Follow(ctx context.Context, feed Feed, w Watch) error {
	if w.Every <= 0 {
		w.Every = time.Second
	}
	if w.MaxStale <= 0 {
		w.MaxStale = 5 * time.Minute
	}
	_, last, err := feed.Changes(ctx, 0)
	if err != nil {
		return fmt.Errorf("cannot ask for changes of policy: %w", err)
	}
	d.watching.maxStale = w.MaxStale
	d.watching.asked.Store(d.now().UnixNano())
	go d.follow(ctx, feed, w, last)
	return nil
}

func (d *Directory) follow(ctx context.Context, feed Feed, w Watch, last int64) {
	tick := time.NewTicker(w.Every)
	defer tick.Stop()
	failing := false
	var undone []string // what Changed could not do
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := d.now()
		asking, cancel := context.WithTimeout(ctx, 5*w.Every)
		companies, seen, err := feed.Changes(asking, last)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if (err != nil) != failing && w.Failed != nil {
			w.Failed(err)
		}
		if failing = err != nil; failing {
			continue
		}
		last = seen
		for _, company := range undone {
			if !slices.Contains(companies, company) {
				companies = append(companies, company)
			}
		}
		for _, company := range companies {
			d.Changed(company)
		}
		undone = nil
		for _, company := range companies {
			if w.Changed != nil && !w.Changed(company) {
				undone = append(undone, company)
			}
		}
		d.watching.asked.Store(began.UnixNano())
	}
}

// Stale returns how long ago the feed was last asked with success; 0 for a
// Directory that is not watched.
func (d *Directory) Stale() time.Duration {
	asked := d.watching.asked.Load()
	if asked == 0 {
		return 0
	}
	return d.now().Sub(time.Unix(0, asked))
}

var errStale = fault.New(fault.Unavailable, "The gateway has not heard from its store for too long to trust what it knows about API keys.")

// tooStale reports whether what is in memory must no longer be trusted.
func (d *Directory) tooStale() bool {
	asked := d.watching.asked.Load()
	return asked != 0 && d.now().UnixNano()-asked > int64(d.watching.maxStale)
}

// Status returns what the company's status is, as the source now says; Erased
// also for one that never was. It is for ending what is under way for one that
// may not work.
func (d *Directory) Status(ctx context.Context, company string) (Status, error) {
	locator := ID{company}.Locator()
	if !validLocator([]byte(locator)) {
		return "", errNoCompany
	}
	kn, err := d.known(ctx, []byte(locator))
	switch {
	case err != nil:
		return "", err
	case kn == nil:
		return Erased, nil
	}
	return kn.company.Status, nil
}

// Current returns a Scope of the same company with its policy as it is in memory
// now, without a key; ok is false if it is not there. It asks nobody.
func (d *Directory) Current(s Scope) (now Scope, ok bool) {
	locator := []byte(s.ID().Locator())
	kn, _, _ := d.shard(locator).find(locator)
	if kn == nil {
		return Scope{}, false
	}
	return d.background(kn.company), true
}
