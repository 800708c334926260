package web

import (
	"context"
	"errors"
	"sync"
	"time"

	"bulkhead/tenant"
)

// KeyUse stores when keys were last used, in the background: it costs a call
// nothing but a note in memory. A gateway that is killed forgets the last minute.
type KeyUse struct {
	g      *Gateway
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// keyUseTimeout bounds one round.
const keyUseTimeout = 30 * time.Second

// StartKeyUse stores what was noted every so often, until Close. failed is called
// when that begins to fail (with why), and when it works again (with nil).
func (g *Gateway) StartKeyUse(every time.Duration, failed func(error)) *KeyUse {
	ctx, cancel := context.WithCancel(context.Background())
	k := &KeyUse{g: g, cancel: cancel}
	k.ended.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		failing := false
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := g.storeKeyUse(ctx); ctx.Err() == nil && (err != nil) != failing {
				failing = err != nil
				failed(err)
			}
		}
	})
	return k
}

// Close stores what is left. It is safe to call twice.
func (k *KeyUse) Close() error {
	if k == nil {
		return nil
	}
	k.cancel()
	k.ended.Wait()
	return k.g.storeKeyUse(context.Background())
}

// storeKeyUse stores what was noted, company by company. What cannot be stored is
// noted again when the key is used again.
func (g *Gateway) storeKeyUse(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, keyUseTimeout)
	defer cancel()
	byCompany := map[tenant.ID][]tenant.KeyUse{}
	for _, u := range g.Tenants.Used() {
		byCompany[u.Scope.ID()] = append(byCompany[u.Scope.ID()], u)
	}
	for _, used := range byCompany {
		err = errors.Join(err, g.Registry.KeysUsed(ctx, used[0].Scope, used))
	}
	return err
}
