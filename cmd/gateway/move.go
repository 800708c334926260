package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"bulkhead/config"
	"bulkhead/keystore"
	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/store"
	"bulkhead/tenant"
)

// keepers are both places that credentials can be in, side by side. No gateway
// ever has both, so that none takes one for the other: that is why these commands
// read the configuration, as migrate does, and ask no gateway.
type keepers struct {
	db        *store.DB
	directory *tenant.Directory
	sealed    *keystore.Keystore
	vault     *keystore.Vault
	lent      keystore.LentMove
	unlock    func()
}

// openKeepers opens what cfg names. A SQLite file is this process's alone;
// gateways over PostgreSQL may be running.
func openKeepers(ctx context.Context, cfg *config.Config) (k *keepers, err error) {
	if cfg.VaultAddr == "" {
		return nil, errors.New("vault_addr is not set: this needs both the store and Vault")
	}
	k = &keepers{unlock: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.close())
		}
	}()
	if path := storeOptions(cfg, nil).Path; path != "" {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return k, fmt.Errorf("there is no database at %s", path)
		}
		if k.unlock, err = lockData(cfg.Data); err != nil {
			k.unlock = func() {}
			return k, fmt.Errorf("%w: stop it first", err)
		}
	}
	if k.db, err = openStore(ctx, cfg, func(company string) { k.directory.Changed(company) }); err != nil {
		return k, err
	}
	master, err := openMaster(ctx, cfg, k.db)
	if err != nil {
		return k, err
	}
	k.directory = tenant.NewDirectory(k.db, k.db, tenant.NewMinter(master.Derive("key pepper")), tenant.Options{})
	k.sealed = keystore.New(k.db, master, keystore.Options{})
	if k.vault, err = openVault(cfg, k.db); err != nil {
		return k, err
	}
	k.lent.Sealed = keystore.NewLender(k.db, master, k.sealed, keystore.Options{})
	k.lent.Vault = keystore.NewLender(k.db, master, k.vault, keystore.Options{})
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := k.vault.Check(ctx); err != nil {
		return k, fmt.Errorf("cannot use Vault: %w", err)
	}
	return k, nil
}

func (k *keepers) close() (err error) {
	if k.vault != nil {
		err = k.vault.Close()
	}
	if k.db != nil {
		err = errors.Join(err, k.db.Close())
	}
	k.unlock()
	return err
}

// each calls do for every company, or only for that one, each in an act of its
// own. It goes on after an error of do, which is do's to keep.
func (k *keepers) each(ctx context.Context, only, action string, do func(context.Context, tenant.CompanyInfo, tenant.Scope) error) error {
	operator := k.directory.Gateway()
	in := func(c tenant.CompanyInfo) error {
		act, err := operator.Begin(ctx, action, c.ID)
		if err != nil {
			return err
		}
		s, err := k.directory.Scope(ctx, act, c.ID)
		if err != nil {
			return err
		}
		return do(ctx, c, s)
	}
	if only != "" {
		act, err := operator.Begin(ctx, action, only)
		if err != nil {
			return err
		}
		c, err := k.db.Company(ctx, act, only)
		if errors.Is(err, tenant.ErrNotFound) {
			return fmt.Errorf("there is no company %q", only)
		}
		if err != nil {
			return err
		}
		return in(c)
	}
	act, err := operator.Begin(ctx, action, "")
	if err != nil {
		return err
	}
	for page := (openai.Page{Limit: 100}); ; {
		companies, more, err := k.db.Companies(ctx, act, page)
		if err != nil {
			return err
		}
		for _, c := range companies {
			if err := errors.Join(in(c), ctx.Err()); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		page.After = companies[len(companies)-1].ID
	}
}

// done is what was done for one company. It names providers and no secret.
type done struct {
	Company string   `json:"company"` // its id, or "operator" of what is lent
	State   string   `json:"state"`   // "moved", "copied", "planned", "synced", "skipped", "failed"
	Written []string `json:"written,omitempty"`
	Same    []string `json:"same,omitempty"`    // was there already
	Kept    []string `json:"kept,omitempty"`    // what was there is later, and stays
	Removed []string `json:"removed,omitempty"` // from where it came
	Noted   []string `json:"noted,omitempty"`   // of sync: what Vault has and the store did not know, or not like this
	Gone    []string `json:"gone,omitempty"`    // of sync: what the store knew and Vault has not
	Refused []string `json:"refused,omitempty"` // of sync: what is in Vault and is not what belongs there
	Error   string   `json:"error,omitempty"`
}

func (d *done) nothing() bool {
	return len(d.Written)+len(d.Same)+len(d.Kept)+len(d.Removed)+len(d.Noted)+len(d.Gone)+len(d.Refused) == 0 && d.Error == ""
}

// move is one run of `gateway credential move`.
type move struct {
	*keepers
	from, to       keystore.Keeper
	toVault        bool
	keep, planOnly bool
}

// company moves the credentials of one company. Whatever stops it, also in the
// middle, it can be called again: what was written and read back is then the same
// there, and is removed from where it came.
func (m *move) company(ctx context.Context, s tenant.Scope) (d done) {
	took := func(c keystore.Copied) { d.Written, d.Same, d.Kept, d.Removed = c.Written, c.Same, c.Kept, c.Removed }
	fail := func(err error) done { d.State, d.Error = "failed", err.Error(); return d }
	if m.planOnly {
		plan, err := keystore.Plan(ctx, s, m.from, m.to)
		took(plan)
		if err != nil {
			return fail(err)
		}
		d.State = "planned"
		return d
	}
	copied, err := keystore.Copy(ctx, s, m.from, m.to)
	took(copied)
	if err != nil {
		return fail(err)
	}
	if m.toVault {
		// An earlier run may have been stopped after it wrote to Vault and before
		// it noted that: routing would not know of it.
		if _, err := m.vault.Sync(ctx, s); err != nil {
			return fail(err)
		}
	}
	if d.State = "copied"; m.keep {
		return d
	}
	moved, err := keystore.Move(ctx, s, m.from, m.to)
	d.Removed = moved.Removed
	if err != nil {
		return fail(err)
	}
	if !m.toVault {
		// In the same way, what is noted of Vault may be there no more.
		if _, err := m.vault.Sync(ctx, s); err != nil {
			return fail(err)
		}
	}
	d.State = "moved"
	return d
}

func (m *move) run(ctx context.Context, only string, tell func(done)) error {
	action := "credential.move"
	if m.planOnly {
		action = "credential.plan"
	}
	if only == "" || only == provider.Operator {
		if err := m.operators(ctx, action, tell); err != nil || only != "" {
			return err
		}
	}
	return m.each(ctx, only, action, func(ctx context.Context, c tenant.CompanyInfo, s tenant.Scope) error {
		d := done{State: "skipped", Error: "the company is being erased"}
		if c.Status != tenant.Erasing {
			d = m.company(ctx, s)
		}
		d.Company = c.ID
		tell(d)
		return nil
	})
}

// operators moves what the operator lends.
func (m *move) operators(ctx context.Context, action string, tell func(done)) error {
	act, err := m.directory.Gateway().Begin(ctx, action, "")
	if err != nil {
		return err
	}
	m.lent.ToVault, m.lent.Keep, m.lent.Plan = m.toVault, m.keep, m.planOnly
	c, err := m.lent.Run(ctx, act)
	d := done{Company: provider.Operator, State: "moved", Written: c.Written, Same: c.Same, Kept: c.Kept, Removed: c.Removed}
	switch {
	case err != nil:
		d.State, d.Error = "failed", err.Error()
	case m.planOnly:
		d.State = "planned"
	case m.keep:
		d.State = "copied"
	}
	tell(d)
	return nil
}

// sync notes for each company what is in Vault.
func (k *keepers) sync(ctx context.Context, only string, tell func(done)) error {
	return k.each(ctx, only, "credential.sync", func(ctx context.Context, c tenant.CompanyInfo, s tenant.Scope) error {
		d := done{Company: c.ID, State: "skipped", Error: "the company is being erased"}
		if c.Status != tenant.Erasing {
			got, err := k.vault.Sync(ctx, s)
			d = done{Company: c.ID, State: "synced", Noted: got.Noted, Gone: got.Removed, Refused: got.Refused}
			if err != nil {
				d.State, d.Error = "failed", err.Error()
			}
		}
		tell(d)
		return nil
	})
}

// credentials runs `gateway credential move` and `gateway credential sync`.
func credentials(ctx context.Context, verb string, args []string) (err error) {
	f := flag.NewFlagSet("gateway credential "+verb, flag.ContinueOnError)
	file := f.String("config", os.Getenv("BULKHEAD_CONFIG"), "the configuration `file`")
	asJSON := f.Bool("json", false, "print one JSON object")
	company := f.String("company", "", "only the company with that `id`; of move, operator is what is lent")
	var to string
	var m move
	if verb == "move" {
		f.StringVar(&to, "to", "", "`vault` or sealed: where the credentials shall be")
		f.BoolVar(&m.keep, "keep", false, "leave them where they were, too")
		f.BoolVar(&m.planOnly, "dry-run", false, "say what would be done")
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("credential %s takes no arguments", verb)
	case verb == "move" && to != "vault" && to != "sealed":
		return errors.New("credential move needs -to vault or -to sealed")
	}
	cfg, err := config.Load(*file, os.Environ())
	if err != nil {
		return err
	}
	k, err := openKeepers(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.close()) }()
	r := report{out: os.Stdout, json: *asJSON, sync: verb == "sync"}
	if r.sync {
		err = k.sync(ctx, *company, r.tell)
	} else {
		m.keepers, m.toVault = k, to == "vault"
		if m.from, m.to = k.vault, k.sealed; m.toVault {
			m.from, m.to = k.sealed, k.vault
		}
		err = m.run(ctx, *company, r.tell)
	}
	if err != nil && r.companies == 0 {
		return err
	}
	return errors.Join(err, r.end())
}

// report prints what was done: a line for each company as it is done, or one
// object at the end.
type report struct {
	out        io.Writer
	json, sync bool
	all        []done // of json
	companies  int
	shown      int
	failed     int
	err        error
}

func (r *report) printf(format string, a ...any) {
	if _, err := fmt.Fprintf(r.out, format, a...); err != nil && r.err == nil {
		r.err = err
	}
}

// tell is told of each company. Of one without credentials nothing is printed.
func (r *report) tell(d done) {
	if d.Company != provider.Operator {
		r.companies++
	}
	if d.State == "failed" {
		r.failed++
	}
	if d.nothing() {
		return
	}
	if r.json {
		r.all = append(r.all, d)
		return
	}
	if r.shown++; r.shown == 1 && r.sync {
		r.printf("%-16s %-8s %6s %6s %8s\n", "COMPANY", "STATE", "NOTED", "GONE", "REFUSED")
	} else if r.shown == 1 {
		r.printf("%-16s %-8s %8s %6s %6s %8s\n", "COMPANY", "STATE", "WRITTEN", "SAME", "KEPT", "REMOVED")
	}
	if r.sync {
		r.printf("%-16s %-8s %6d %6d %8d", d.Company, d.State, len(d.Noted), len(d.Gone), len(d.Refused))
	} else {
		r.printf("%-16s %-8s %8d %6d %6d %8d", d.Company, d.State, len(d.Written), len(d.Same), len(d.Kept), len(d.Removed))
	}
	if d.Error != "" {
		r.printf("  %s", strings.Join(strings.Fields(d.Error), " "))
	}
	r.printf("\n")
}

func (r *report) end() error {
	if r.json {
		text, err := json.MarshalIndent(struct {
			Companies int    `json:"companies"` // looked at
			Failed    int    `json:"failed"`
			Data      []done `json:"data"` // those that have credentials
		}{r.companies, r.failed, append([]done{}, r.all...)}, "", "  ")
		if err != nil {
			return err
		}
		r.printf("%s\n", text)
	} else {
		r.printf("%d companies looked at, %d had something to do, %d failed\n", r.companies, r.shown, r.failed)
	}
	if r.err == nil && r.failed > 0 {
		return fmt.Errorf("%d failed; run it again when the cause is gone", r.failed)
	}
	return r.err
}
