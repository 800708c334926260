package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"bulkhead/config"
	"bulkhead/store"
)

// load reads the configuration that args name.
func load(name string, args []string) (cfg *config.Config, file string, err error) {
	f := flag.NewFlagSet("gateway "+name, flag.ContinueOnError)
	f.StringVar(&file, "config", os.Getenv("BULKHEAD_CONFIG"), "the configuration `file`")
	if err := f.Parse(args); err != nil {
		return nil, "", err
	}
	if f.NArg() > 0 {
		return nil, "", fmt.Errorf("%s takes no arguments", name)
	}
	cfg, err = config.Load(file, os.Environ())
	return cfg, file, err
}

// serve runs the gateway until ctx is over. It builds everything in order and
// stops it in reverse.
func serve(ctx context.Context, args []string) (err error) {
	cfg, file, err := load("serve", args)
	if err != nil {
		return err
	}
	tuneGC()
	lines := newLogWriter(os.Stderr)
	defer lines.Flush()
	level := new(slog.LevelVar)
	log := newLogger(cfg, level, lines)
	for _, w := range cfg.Warnings() {
		log.Warn(w)
	}

	unlock, err := lockData(cfg.Data)
	if err != nil {
		return err
	}
	defer unlock()
	h, err := build(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()

	public, err := listen(cfg.Listen, cfg.TLS)
	if err != nil {
		return err
	}
	defer public.Close()
	ops, err := listen(cfg.OpsListen, config.TLS{})
	if err != nil {
		return err
	}
	defer ops.Close()

	failed := make(chan error, 2)
	go func() { failed <- h.gateway.Serve(public) }()
	go func() { failed <- h.gateway.ServeOps(ops) }()
	if err := h.firstRun(ctx, cfg, public.Addr().String(), os.Stdout); err != nil {
		return err
	}
	h.gateway.Ready(true)
	log.Info("serving", "version", version, "listen", public.Addr().String(), "ops_listen", ops.Addr().String())

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case err := <-failed:
			return fmt.Errorf("a listener failed: %w", err)
		case <-hup:
			cfg = h.reload(cfg, file, level)
		case <-ctx.Done():
			log.Info("stopping", "calls", h.gateway.InFlight())
			retire, cancel := context.WithTimeout(context.Background(), cfg.ShutdownDelay)
			defer cancel()
			h.gateway.Retire(retire)
			stop, cancel := context.WithTimeout(context.Background(), cfg.ShutdownTimeout)
			defer cancel()
			if err := h.gateway.Shutdown(stop); err != nil {
				return fmt.Errorf("cannot stop: %w", err)
			}
			return nil
		}
	}
}

// tuneGC lets the heap grow to four times what is alive before it is collected:
// a gateway has little that lives long, and collecting it often is what costs.
// GOGC and GOMEMLIMIT in the environment say otherwise.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// lockData makes the data folder and keeps a second gateway out of it.
func lockData(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data folder: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("the data folder %s is in use by another gateway", dir)
	}
	return func() { f.Close() }, nil
}

func migrate(ctx context.Context, args []string) error {
	cfg, _, err := load("migrate", args)
	if err != nil {
		return err
	}
	unlock, err := lockData(cfg.Data)
	if err != nil {
		return err
	}
	defer unlock()
	if !cfg.PostgresURL.Empty() && cfg.PostgresOwnerURL.Empty() {
		return errors.New("postgres_owner_url is not set: only the owner of the database can migrate it")
	}
	db, err := store.OpenOwner(ctx, storeOptions(cfg, nil))
	if err != nil {
		return err
	}
	defer db.Close()
	steps, err := db.Pending(ctx)
	if err != nil {
		return err
	}
	if err := db.Migrate(ctx); err != nil {
		return err
	}
	for _, s := range steps {
		fmt.Println("migrated", s)
	}
	fmt.Println("the database is up to date")
	return nil
}
