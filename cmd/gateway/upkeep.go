package main

import (
	"context"
	"time"

	"bulkhead/tenant"
	"bulkhead/web"
)

// webhookKey is what the key is derived for that the secrets of webhooks come
// from. Receivers have those secrets: renaming it breaks what they verify.
const webhookKey = "webhook"

// openUpkeep begins what the gateway does for companies by itself. keep is for how
// long entries of the ledger are kept; 0: for ever.
func (h *house) openUpkeep(ctx context.Context, directory *tenant.Directory, keep time.Duration) {
	upkeep := h.gateway.StartUpkeep(h.db, web.UpkeepOptions{Keep: keep, Failed: func(kind string, err error) {
		if err != nil {
			h.log.Error("work in the background fails; it is tried again", "work", kind, "error", err.Error())
			return
		}
		h.log.Info("work in the background goes on", "work", kind)
	}})
	h.closers = append(h.closers, upkeep.Close)
	used := h.gateway.StartKeyUse(time.Minute, func(err error) {
		if err != nil {
			h.log.Error("when keys were used cannot be stored", "error", err.Error())
			return
		}
		h.log.Info("when keys were used is stored again")
	})
	h.closers = append(h.closers, used.Close)
	go h.beginRollups(ctx, directory)
}

// beginRollups has the ledgers added up of companies that are from before that was
// done.
func (h *house) beginRollups(ctx context.Context, directory *tenant.Directory) {
	h.once(ctx, directory, "ledger.roll_up_all", h.db.RollupsBegun, h.db.BeginRollups)
}

// once does what a version of the gateway has to do to every company that is
// older, once in the life of a database. Requests need not wait for it, and the
// next start goes on where this one fails.
func (h *house) once(ctx context.Context, directory *tenant.Directory, action string,
	done func(context.Context) (bool, error), do func(context.Context, tenant.Act) error) {
	err := func() error {
		if is, err := done(ctx); err != nil || is {
			return err
		}
		act, err := directory.Gateway().Begin(ctx, action, "")
		if err != nil {
			return err
		}
		return do(ctx, act)
	}()
	if err != nil && ctx.Err() == nil {
		h.log.Error("not every company is brought up to this version; the next start goes on", "action", action, "error", err.Error())
	}
}
