package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"bulkhead/config"
)

// state is how a check ended.
type state string

const (
	good    state = "ok"
	warning state = "warning"
	failed  state = "failed"
)

// finding is one row of what `gateway check` prints. No part of it holds a
// secret.
type finding struct {
	What    string `json:"what"`
	Where   string `json:"where"`
	Version string `json:"version"` // of a server; "" where there is none
	State   state  `json:"state"`
	Detail  string `json:"detail"`
}

// check is something to look at. look returns at least one finding; where it
// leaves out what and where, they are the check's own.
type check struct {
	what, where string
	look        func(ctx context.Context) []finding
}

// checkTimeout bounds each check, whatever it does.
const checkTimeout = 10 * time.Second

// checksOf lists what a gateway with that configuration needs, in the order in
// which it is printed. What it does not use is not there. A new kind of server is
// one more line and a function.
func checksOf(cfg *config.Config) []check {
	c := checker{cfg}
	all := []check{
		{"providers", "", c.providers},
		{"data folder", cfg.Data, c.dataFolder},
		{"listen", cfg.Listen, func(context.Context) []finding { return c.listen(cfg.Listen) }},
		{"ops_listen", cfg.OpsListen, func(context.Context) []finding { return c.listen(cfg.OpsListen) }},
	}
	add := func(used bool, what, where string, look func(context.Context) []finding) {
		if used {
			all = append(all, check{what, where, look})
		}
	}
	postgres := !cfg.PostgresURL.Empty()
	add(cfg.TLS.Cert != "", "tls", cfg.TLS.Cert, c.tls)
	add(!postgres, "sqlite", c.storeOptions().Path, c.sqlite)
	add(postgres, "postgres", withoutPassword(cfg.PostgresURL), c.postgres)
	add(!cfg.PostgresOwnerURL.Empty(), "postgres owner", withoutPassword(cfg.PostgresOwnerURL), c.postgresOwner)
	add(!cfg.RedisURL.Empty(), "redis", c.redisWhere(), c.redis)
	add(cfg.MilvusAddr != "", "milvus", redacted(cfg.MilvusAddr), c.milvus)
	add(cfg.VaultAddr != "" && cfg.VaultCredentials, "vault", redacted(cfg.VaultAddr), c.vault)
	add(cfg.S3URL != "", "s3", redacted(cfg.S3URL), c.s3)
	add(cfg.OTel.Endpoint != "", "traces", redacted(cfg.OTel.Endpoint), c.traces)
	return all
}

// checkAll runs all checks side by side and returns what they found, in their
// order. One that does not end in time has failed.
func checkAll(ctx context.Context, all []check) (found []finding) {
	each := make([][]finding, len(all))
	var wait sync.WaitGroup
	for i, one := range all {
		wait.Go(func() { each[i] = one.run(ctx) })
	}
	wait.Wait()
	for _, f := range each {
		found = append(found, f...)
	}
	return found
}

func (c check) run(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	done := make(chan []finding, 1)
	go func() { done <- c.look(ctx) }()
	var found []finding
	select {
	case found = <-done:
	case <-ctx.Done():
		// What looks may be done at this moment, and is then the better answer.
		select {
		case found = <-done:
		case <-time.After(time.Second):
			found = []finding{{State: failed, Detail: fmt.Sprintf("no answer within %s", checkTimeout)}}
		}
	}
	for i := range found {
		f := &found[i]
		if f.What == "" {
			f.What, f.Where = c.what, c.where
		}
		f.Detail = strings.Join(strings.Fields(f.Detail), " ")
	}
	return found
}

// runCheck reports every problem of the configuration, or reaches all that it
// names and prints what it found. It changes nothing.
func runCheck(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("gateway check", flag.ContinueOnError)
	file := f.String("config", os.Getenv("BULKHEAD_CONFIG"), "the configuration `file`")
	asJSON := f.Bool("json", false, "print a JSON array")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return errors.New("check takes no arguments")
	}
	cfg, err := config.Load(*file, os.Environ())
	if err != nil {
		if *asJSON {
			return errors.Join(printFindings(os.Stdout, problemsFound(err), true), err)
		}
		return err
	}
	found := configFound(cfg, *file)
	found = append(found, checkAll(ctx, checksOf(cfg))...)
	if err := printFindings(os.Stdout, found, *asJSON); err != nil {
		return err
	}
	bad := 0
	for _, one := range found {
		if one.State == failed {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d checks failed", bad, len(found))
	}
	return nil
}

// problemsFound makes findings of what is wrong with a configuration.
func problemsFound(err error) (found []finding) {
	problems, ok := errors.AsType[*config.Problems](err)
	if !ok {
		return []finding{{What: "configuration", State: failed, Detail: err.Error()}}
	}
	for _, p := range *problems {
		found = append(found, finding{What: "configuration", Where: p.Key, State: failed, Detail: p.Message})
	}
	return found
}

// configFound says that a configuration is good, and what in it should be meant.
func configFound(cfg *config.Config, file string) []finding {
	if file == "" {
		file = "environment"
	}
	found := []finding{{What: "configuration", Where: file, State: good, Detail: "every key is known, every value good"}}
	for _, w := range cfg.Warnings() {
		found = append(found, finding{What: "configuration", Where: file, State: warning, Detail: w})
	}
	return found
}

func printFindings(w io.Writer, found []finding, asJSON bool) error {
	if asJSON {
		text, err := json.MarshalIndent(found, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w, string(text))
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tWHERE\tVERSION\tSTATE\tDETAIL")
	for _, f := range found {
		row := []string{f.What, f.Where, f.Version, string(f.State), f.Detail}
		for i, cell := range row {
			if cell == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}
