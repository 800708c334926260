package tenant

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// audiences knows which company an approved audience is of. There are few, so
// all are read at once: tokens with made-up audiences cost one look-up together
// in each audiencesFor at most. A company's policy says whether it is still so.
type audiences struct {
	list    atomic.Pointer[audienceList]
	reading sync.Mutex
	failed  time.Time // when reading failed last
}

type audienceList struct {
	companies map[string]string // ids, by audience
	read      time.Time
}

// audiencesFor is how long an audience that is not known stays unknown, and how
// long after a failure nobody tries again.
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
	if err := a.renew(ctx, d); err != nil {
		return "", err
	}
	return a.known(audience), nil
}

// known returns the locator of the company of an audience, without asking.
func (a *audiences) known(audience string) string {
	if list := a.list.Load(); list != nil {
		return ID{list.companies[audience]}.Locator()
	}
	return ""
}

// renew reads the list, unless that was only just done. Those who come meanwhile
// wait for that one reading, whatever comes of it.
func (a *audiences) renew(ctx context.Context, d *Directory) error {
	a.reading.Lock()
	defer a.reading.Unlock()
	now := d.now()
	if list := a.list.Load(); list != nil && now.Sub(list.read) < audiencesFor {
		return nil
	}
	if !a.failed.IsZero() && now.Sub(a.failed) < audiencesFor {
		return errNoAudiences
	}
	release, err := d.lookup(ctx)
	if err != nil {
		return err
	}
	defer release()
	d.loads.Add(1)
	all, err := d.source.LoadAudiences(ctx)
	if err != nil {
		if ctx.Err() == nil { // it was not the one who asks that left
			a.failed = now
		}
		return unavailable(err)
	}
	a.list.Store(&audienceList{all, now})
	a.failed = time.Time{}
	return nil
}
