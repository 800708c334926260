package main

import (
	"context"
	"fmt"
	"time"

	"bulkhead/config"
	"bulkhead/store"
	"bulkhead/tenant"
	"bulkhead/web"
)

const (
	// backendGrace is how long a server may be away before readiness says no:
	// what is in memory goes on working, and a restart takes a few seconds.
	backendGrace = 10 * time.Second
	// staleNews is how old the news of policy may be. They come every second.
	staleNews = 5 * time.Second
)

// storeBackend says how the store is asked: whether it answers, and whether it
// still tells what changed.
func storeBackend(cfg *config.Config, db *store.DB, directory *tenant.Directory) web.Backend {
	b := web.Backend{Name: "sqlite", Grace: backendGrace}
	if !cfg.PostgresURL.Empty() {
		b.Name = "postgres"
	}
	b.Ask = func(ctx context.Context) error {
		if err := db.Ping(ctx); err != nil {
			return err
		}
		if old := directory.Stale(); old > staleNews {
			return fmt.Errorf("it has not said for %s what changed", old.Round(time.Second))
		}
		return nil
	}
	return b
}

// backendChanged tells of a server going away and coming back.
func (h *house) backendChanged(name string, err error) {
	if err != nil {
		h.log.Error("a server is away", "backend", name, "error", err.Error())
		return
	}
	h.log.Info("a server is back", "backend", name)
}
