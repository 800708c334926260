package tenant

import (
	"context"
	"sync"
	"time"
)

// audiences knows which company an approved audience is of. There are few, so
// all are read at once: tokens with made-up audiences cost a look-up each
// audiencesFor at most. A company's policy says whether it is still so.
type audiences struct {
	mu   sync.Mutex // held while they are read
	all  map[string]string
	read time.Time
}

// audiencesFor is how long an audience that is not known stays unknown.
const audiencesFor = 3 * time.Second

// company returns the locator of the company that the operator approved the
// audience for; "": none.
func (a *audiences) company(ctx context.Context, d *Directory, audience string) (locator string, err error) {
	if locator = a.known(audience); locator != "" {
		switch kn, err := d.known(ctx, []byte(locator)); {
		case err != nil:
			return "", err
		case kn != nil && kn.company.Takes(audience):
			return locator, nil
		}
		// It was taken away, and may be another's by now.
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := d.now(); a.all == nil || now.Sub(a.read) >= audiencesFor {
		release, err := d.lookup(ctx)
		if err != nil {
			return "", err
		}
		defer release()
		d.loads.Add(1)
		all, err := d.source.LoadAudiences(ctx)
		if err != nil {
			return "", unavailable(err)
		}
		a.all, a.read = all, now
	}
	return ID{a.all[audience]}.Locator(), nil
}

// known returns the locator of the company of an audience, without asking.
func (a *audiences) known(audience string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return ID{a.all[audience]}.Locator()
}
