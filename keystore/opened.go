package keystore

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/singleflight"

	"bulkhead/provider"
	"bulkhead/tenant"
)

// opened gives credentials from memory and has the others read, once for all
// who want the same one at the moment.
type opened struct {
	*cache[provider.Credential] // by provider
	o                           Options
	spread                      time.Duration // how much shorter or longer than the TTL one may live
	read                        func(ctx context.Context, s tenant.Scope, name string) (provider.Credential, error)
	loading                     singleflight.Group

	// outlive lets what is past its time go on while it is read anew, and for as
	// long as that cannot be done. It is for a store whose every change is heard of:
	// a change drops what was read before it, and the Directory says for how long
	// what it knows is trusted.
	outlive bool
}

// again is how long after a failure what is past its time is tried to be read
// anew.
const again = 5 * time.Second

func newOpened(o Options, spread time.Duration, read func(context.Context, tenant.Scope, string) (provider.Credential, error)) *opened {
	return &opened{cache: newCache[provider.Credential](o.Cached, o.CachedPerCompany), o: o, spread: spread, read: read}
}

func (p *opened) credential(ctx context.Context, s tenant.Scope, name string) (provider.Credential, error) {
	company := s.Company()
	if c, ok := p.get(company.ID().String(), name, company.Generation, p.o.Now()); ok {
		return c, nil
	}
	if p.outlive {
		now := p.o.Now()
		if c, first, ok := p.overdue(company.ID().String(), name, company.Generation, now, now.Add(again)); ok {
			if first {
				mark := p.mark()
				go func() { _, _ = p.reload(context.WithoutCancel(ctx), s, name, mark) }() // it fails: what there is goes on
			}
			return c, nil
		}
	}
	return p.load(ctx, s, name)
}

// reload reads a credential and keeps it, unless something was dropped since mark.
func (p *opened) reload(ctx context.Context, s tenant.Scope, name string, mark uint64) (provider.Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.LoadTimeout)
	defer cancel()
	c, err := p.read(ctx, s, name)
	if err == nil {
		p.put(c.Company, name, entry[provider.Credential]{c, s.Company().Generation, p.o.Now().Add(p.life())}, mark)
	}
	return c, err
}

func (p *opened) load(ctx context.Context, s tenant.Scope, name string) (provider.Credential, error) {
	if len(name) > maxProvider {
		return provider.Credential{}, missing(name)
	}
	company, mark := s.Company(), p.mark()
	// Whoever saw a change must not be given what was read before it: so
	// generation and mark are part of the name of the load, as is the company.
	flight := binary.BigEndian.AppendUint64(nil, uint64(company.Generation))
	flight = binary.BigEndian.AppendUint64(flight, mark)
	flight = s.Name(forCredential, name).Append(flight)
	got, err, _ := p.loading.Do(string(flight), func() (any, error) {
		// Another load may have ended since memory was looked at.
		if c, ok := p.get(company.ID().String(), name, company.Generation, p.o.Now()); ok {
			return c, nil
		}
		return p.reload(context.WithoutCancel(ctx), s, name, mark)
	})
	if err != nil {
		return provider.Credential{}, err
	}
	return got.(provider.Credential), nil
}

// life returns how long what is read now is kept.
func (p *opened) life() time.Duration {
	if p.spread <= 0 {
		return p.o.TTL
	}
	return p.o.TTL - p.spread + rand.N(2*p.spread+1)
}
