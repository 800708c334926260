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
	go h.beginRollups(ctx, directory)
}

// beginRollups has the ledgers added up of companies that are from before that was
// done, once in the life of a database.
func (h *house) beginRollups(ctx context.Context, directory *tenant.Directory) {
	err := func() error {
		if done, err := h.db.RollupsBegun(ctx); err != nil || done {
			return err
		}
		act, err := directory.Gateway().Begin(ctx, "ledger.roll_up_all", "")
		if err != nil {
			return err
		}
		return h.db.BeginRollups(ctx, act)
	}()
	if err != nil && ctx.Err() == nil {
		h.log.Error("not every ledger is added up yet; the next start goes on", "error", err.Error())
	}
}
