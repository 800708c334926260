package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"bulkhead/config"
	"bulkhead/keystore"
	"bulkhead/provider"
)

// transitTimeout bounds how long a start waits for Vault to open the master key.
const transitTimeout = 30 * time.Second

func masterPath(cfg *config.Config) string { return filepath.Join(cfg.Data, "master.key") }

// masterSource says where cfg has the master key, and what opens it.
func masterSource(cfg *config.Config) (from keystore.MasterSource, err error) {
	from = keystore.MasterSource{Path: masterPath(cfg), Given: provider.NewSecret(cfg.MasterKey.Reveal())}
	if cfg.VaultTransitKey != "" {
		from.Transit, err = keystore.NewTransit(vaultOptions(cfg), cfg.VaultTransitMount, cfg.VaultTransitKey)
	}
	return from, err
}

func loadMaster(ctx context.Context, cfg *config.Config) (*keystore.Master, error) {
	from, err := masterSource(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, transitTimeout)
	defer cancel()
	master, _, err := keystore.LoadMaster(ctx, from)
	return master, err
}

// sealMaster is gateway master seal. Gateways may be running: the key stays what
// it is, and what they have in memory, too.
func sealMaster(ctx context.Context, args []string, out io.Writer) error {
	cfg, _, err := load("master seal", args)
	if err != nil {
		return err
	}
	if cfg.VaultTransitKey == "" {
		return errors.New("vault_transit_key is not set: it names the key that is to seal")
	}
	from, err := masterSource(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, transitTimeout)
	defer cancel()
	text, err := keystore.SealMaster(ctx, from)
	if err != nil {
		return err
	}
	if from.Given.Empty() {
		fmt.Fprintf(out, "%s is sealed with %q.\n", from.Path, cfg.VaultTransitKey)
	} else {
		fmt.Fprintf(out, "master_key from now on:\n%s\n", text)
	}
	return nil
}
