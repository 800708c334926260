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

	"bulkhead/audit"
	"bulkhead/config"
	"bulkhead/fault"
	"bulkhead/store"
	"bulkhead/tenant"
)

// auditKey is what the key of the audit chains is derived for. Chains that are
// stored depend on it.
const auditKey = "audit chain"

// openTally opens what counts refusals and reads for the audit log.
func (h *house) openTally() *audit.Tally {
	tally := audit.NewTally(h.db, audit.TallyOptions{Failed: func(err error) {
		if err != nil {
			h.log.Error("refusals and reads cannot be written to the audit log; they wait, as far as there is room", "error", err.Error())
			return
		}
		h.log.Info("the audit log is written again")
	}})
	h.closers = append(h.closers, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		return tally.Close(ctx)
	})
	return tally
}

// beginChains has the audit chains of companies begun that are from before there
// were chains.
func (h *house) beginChains(ctx context.Context, directory *tenant.Directory) {
	h.once(ctx, directory, "audit.begin_all", h.db.ChainsBegun, h.db.BeginChains)
}

// auditVerify holds the audit rows of all companies, and the acts of operators,
// against their chains. It reads the database itself and changes nothing: a
// gateway may be running, and a copy will do.
func auditVerify(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("gateway audit verify", flag.ContinueOnError)
	file := f.String("config", os.Getenv("BULKHEAD_CONFIG"), "the configuration `file`")
	only := f.String("company", "", "verify the chain of the company with this `id`, or \"operator\", and no other")
	expect := f.String("expect", "", "what the head of that chain was at some time before, `COUNT:HASH`")
	asJSON := f.Bool("json", false, "print one JSON object")
	if err := f.Parse(args); err != nil {
		return err
	}
	var anchor *audit.Head
	if *expect != "" {
		head, err := audit.ParseHead(*expect)
		if err != nil {
			return fmt.Errorf("-expect: %w", err)
		}
		anchor = &head
	}
	switch {
	case f.NArg() > 0:
		return errors.New("audit verify takes no arguments")
	case anchor != nil && *only == "":
		return errors.New("-expect is the head of one chain: say with -company of which")
	}
	cfg, err := config.Load(*file, os.Environ())
	if err != nil {
		return err
	}
	v, err := openVerifier(ctx, cfg)
	if err != nil {
		return err
	}
	defer v.db.Close()
	switch *only {
	case "":
		err = v.all(ctx)
	case audit.Operators:
		err = v.operators(ctx, anchor)
	default:
		err = v.company(ctx, *only, anchor)
	}
	if err != nil {
		return err
	}
	return v.print(out, *asJSON)
}

// verifier verifies chains and keeps what it finds.
type verifier struct {
	db        *store.DB
	directory *tenant.Directory
	roll      *audit.Roll

	OK      bool           `json:"ok"`
	Reports []audit.Report `json:"chains"`
	Gone    []string       `json:"gone,omitempty"` // companies that acts speak of and that are not there
}

// unrecorded lets verify look at all companies without a row for it: it must
// also work where nothing can be written, and where the chain is broken that the
// row would be added to.
type unrecorded struct{}

func (unrecorded) RecordAct(context.Context, string, string, string) error { return nil }

// openVerifier opens the database of cfg to be read.
func openVerifier(ctx context.Context, cfg *config.Config) (*verifier, error) {
	o := storeOptions(cfg, nil)
	l, err := store.Look(ctx, o)
	if err != nil {
		return nil, err
	}
	switch {
	case l.Absent:
		return nil, fmt.Errorf("there is no database at %s", l.Where)
	case len(l.Pending) > 0:
		return nil, fmt.Errorf("the database is not migrated to %s", l.Pending[len(l.Pending)-1])
	}
	if _, err := os.Stat(masterPath(cfg)); cfg.MasterKey.Empty() && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("master.key is missing in %s and master_key is not set: without it no chain can be verified", cfg.Data)
	}
	master, err := loadMaster(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if l.MasterKeyCheck != masterKeyCheck(master) {
		return nil, errors.New("this is not the master key the database was sealed with: every chain would look broken")
	}
	db, err := store.OpenToRead(ctx, o)
	if err != nil {
		return nil, err
	}
	db.KeyAudit(master.Derive(auditKey))
	minter := tenant.NewMinter(master.Derive("key pepper"))
	// One company is looked at after the other; none need stay in memory.
	d := tenant.NewDirectory(db, unrecorded{}, minter, tenant.Options{Companies: 1, Lookups: 1})
	return &verifier{db: db, directory: d, roll: audit.NewRoll(), Reports: []audit.Report{}}, nil
}

// all verifies every chain, and holds the companies against the acts of
// operators. The companies are read first: one that comes into being meanwhile
// is in the acts and not among them, so those are looked for again.
func (v *verifier) all(ctx context.Context) error {
	act, err := v.directory.Gateway().Begin(ctx, "audit.verify", "")
	if err != nil {
		return err
	}
	erased := map[string]bool{}
	read := func(see func(c tenant.CompanyInfo) error) error {
		for after := ""; ; {
			some, err := v.db.AuditedCompanies(ctx, act, after)
			if err != nil || len(some) == 0 {
				return err
			}
			for _, c := range some {
				if err := see(c); err != nil {
					return err
				}
			}
			after = some[len(some)-1].ID
		}
	}
	err = read(func(c tenant.CompanyInfo) error {
		gone := c.Status == tenant.Erased
		if !gone {
			err := v.company(ctx, c.ID, nil)
			if gone = fault.Is(err, fault.NotFound); err != nil && !gone {
				return err
			}
		}
		if gone { // nothing of it is left but that it was erased
			v.Reports = append(v.Reports, audit.Report{Chain: c.ID, Findings: []audit.Finding{}})
		}
		erased[c.ID] = gone
		return nil
	})
	if err != nil {
		return err
	}
	n := len(v.Reports)
	if err := v.operators(ctx, nil); err != nil {
		return err
	}
	for i := range v.Reports[:n] {
		v.roll.Company(&v.Reports[i], erased[v.Reports[i].Chain])
	}
	if v.Gone = v.roll.Gone(); len(v.Gone) == 0 {
		return nil
	}
	there := map[string]bool{}
	if err := read(func(c tenant.CompanyInfo) error { there[c.ID] = true; return nil }); err != nil {
		return err
	}
	var gone []string
	for _, id := range v.Gone {
		if !there[id] {
			gone = append(gone, id)
		}
	}
	v.Gone = gone
	return nil
}

// company verifies the chain of one company.
func (v *verifier) company(ctx context.Context, id string, anchor *audit.Head) error {
	act, err := v.directory.Gateway().Begin(ctx, "audit.verify", id)
	if err != nil {
		return err
	}
	s, err := v.directory.Scope(ctx, act, id)
	if err != nil {
		return err
	}
	r, err := v.db.VerifyAudit(ctx, s, anchor)
	if err != nil {
		return fmt.Errorf("cannot verify the chain of %s: %w", id, err)
	}
	v.Reports = append(v.Reports, r)
	return nil
}

// operators verifies the chain of operators' acts.
func (v *verifier) operators(ctx context.Context, anchor *audit.Head) error {
	r, err := v.db.VerifyActs(ctx, anchor, v.roll.Act)
	if err != nil {
		return fmt.Errorf("cannot verify the acts of operators: %w", err)
	}
	v.Reports = append(v.Reports, r)
	return nil
}

// print shows what was found, and returns an error if that is anything.
func (v *verifier) print(out io.Writer, asJSON bool) error {
	var rows, found int64
	for _, r := range v.Reports {
		rows += r.Count
		found += int64(len(r.Findings)) + r.More
	}
	found += int64(len(v.Gone))
	v.OK = found == 0
	if asJSON {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, string(b)); err != nil {
			return err
		}
	} else if err := v.lines(out); err != nil {
		return err
	}
	if !v.OK {
		return fmt.Errorf("the audit log is not as it was written: %d findings in %d chains", found, len(v.Reports))
	}
	if asJSON {
		return nil
	}
	_, err := fmt.Fprintf(out, "%d rows in %d chains are as they were written\n", rows, len(v.Reports))
	return err
}

func (v *verifier) lines(out io.Writer) error {
	var errs []error
	line := func(format string, a ...any) {
		_, err := fmt.Fprintf(out, format+"\n", a...)
		errs = append(errs, err)
	}
	for _, r := range v.Reports {
		switch {
		case r.Head != "":
			line("%s  %d:%s", r.Chain, r.Count, r.Head)
		case len(r.Findings) == 0:
			line("%s  erased", r.Chain)
		}
		for _, f := range r.Findings {
			at := fmt.Sprint(f.Sequence)
			if f.To > 0 {
				at += fmt.Sprint("-", f.To)
			}
			if f.ID != "" {
				at += " (" + f.ID + ")"
			}
			line("%s  %s at %s: %s", r.Chain, f.Kind, at, f.Text)
		}
		if r.More > 0 {
			line("%s  and %d more", r.Chain, r.More)
		}
	}
	for _, id := range v.Gone {
		line("%s  %s: the acts of operators speak of this company, and it is not there", id, audit.Gone)
	}
	return errors.Join(errs...)
}
