package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"bulkhead/config"
	"bulkhead/keystore"
	"bulkhead/redisdb"
	"bulkhead/store"
)

// What this version was tested with; docs/operations.md has the whole table. An
// older server is a warning, one that is too old for the store a failure.
const (
	testedPostgres = 15
	testedBao      = "2.7.2"
)

// clockApart is how far the clocks of gateway and database may be apart: what
// one writes down the other reads, and windows of limits begin by the clock.
const clockApart = 2 * time.Second

// withoutPassword says which database a URL names.
func withoutPassword(s config.Secret) string {
	u, err := url.Parse(s.Reveal())
	if err != nil {
		return "" // config has refused it
	}
	return u.User.Username() + "@" + u.Host + u.Path
}

// redacted is an address without what it could have of a user.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.User = nil
	return u.String()
}

func (c checker) sqlite(ctx context.Context) []finding {
	l, err := store.Look(ctx, c.storeOptions())
	f := finding{Version: l.Version, State: good, Detail: "the schema is this version's"}
	switch {
	case err != nil:
		f.State, f.Detail = failed, err.Error()
	case l.Absent:
		f.Detail = "it is not there yet; the first start makes it"
	case len(l.Problems) > 0:
		f.State, f.Detail = failed, strings.Join(l.Problems, "; ")
	case l.Newer != "":
		f.State, f.Detail = failed, "a newer version of the gateway has migrated it: "+l.Newer
	case len(l.Pending) > 0:
		f.Detail = "the next start migrates it: " + strings.Join(l.Pending, ", ")
	}
	return []finding{f, c.masterKey(ctx, l, err)}
}

func (c checker) postgres(ctx context.Context) []finding {
	l, err := store.Look(ctx, c.storeOptions())
	if err != nil {
		return []finding{{State: failed, Version: l.Version, Detail: err.Error()}, c.masterKey(ctx, l, err)}
	}
	var found []finding
	add := func(s state, format string, a ...any) {
		found = append(found, finding{Version: l.Version, State: s, Detail: fmt.Sprintf(format, a...)})
	}
	for _, p := range l.Problems {
		add(failed, "%s", p)
	}
	for _, m := range l.Missing {
		add(failed, "the user lacks %s: was it gateway migrate that made it?", m)
	}
	switch {
	case l.Absent:
		add(failed, "the database is empty: run gateway migrate with postgres_owner_url")
	case len(l.Pending) > 0:
		add(failed, "the schema is that of an older version: run gateway migrate, which takes %s", strings.Join(l.Pending, ", "))
	case l.Newer != "":
		add(warning, "a newer version has migrated it (%s): good while gateways are replaced one by one", l.Newer)
	}
	if l.Major < testedPostgres {
		add(warning, "older than %d, the oldest that this version was tested with", testedPostgres)
	}
	if len(found) == 0 {
		add(good, "the schema is this version's, and row-level security holds for the user")
	}
	return append(found, c.clock(l), c.masterKey(ctx, l, nil))
}

// clock compares this machine's clock with the database's.
func (c checker) clock(l store.Looked) finding {
	f := finding{What: "clock", Where: l.Where, State: good, Detail: "less than 2 s from this machine's"}
	if apart := l.Ahead.Abs(); apart > clockApart {
		f.State = warning
		f.Detail = fmt.Sprintf("the database's is %s %s this machine's: have both follow the same time server",
			apart.Round(100*time.Millisecond), map[bool]string{true: "before", false: "behind"}[l.Ahead > 0])
	}
	return f
}

func (c checker) postgresOwner(ctx context.Context) []finding {
	l, err := store.LookAsOwner(ctx, c.storeOptions())
	f := finding{Version: l.Version, State: good, Detail: "the user may migrate"}
	switch {
	case err != nil:
		f.State, f.Detail = failed, err.Error()
	case len(l.Problems)+len(l.Missing) > 0:
		f.State, f.Detail = failed, strings.Join(l.Problems, "; ")
		for _, m := range l.Missing {
			f.Detail += "; the user lacks " + m
		}
		f.Detail = strings.TrimPrefix(f.Detail, "; ")
	}
	return []finding{f}
}

// masterKey compares the master key with that of the database, of which l is
// known unless err says why not. It makes none.
func (c checker) masterKey(ctx context.Context, l store.Looked, err error) finding {
	f := finding{What: "master key", Where: "master_key", State: failed}
	if path := masterPath(c.cfg); c.cfg.MasterKey.Empty() {
		f.Where = path
		if _, gone := os.Stat(path); errors.Is(gone, fs.ErrNotExist) {
			switch {
			case err != nil:
				f.State, f.Detail = warning, "it is not there, and whether the database was sealed with one is not known"
			case l.MasterKeyCheck != "":
				f.Detail = "it is not there, but the database was sealed with one: put it back, or set master_key"
			default:
				f.State, f.Detail = good, "it is not there yet; the first start makes it"
			}
			return f
		}
	}
	master, bad := loadMaster(ctx, c.cfg)
	switch {
	case bad != nil:
		f.Detail = bad.Error()
	case err != nil:
		f.State, f.Detail = warning, "good, but not compared with the database, which could not be looked at"
	case l.MasterKeyCheck == "":
		f.State, f.Detail = good, "good; the first start ties the database to it"
	case l.MasterKeyCheck != masterKeyCheck(master):
		f.Detail = "this is not the one the database was sealed with: every key and credential in it would be refused"
	default:
		f.State, f.Detail = good, "the one the database was sealed with"
	}
	return f
}

// masterKeyCheck returns what tells one master key from another.
func masterKeyCheck(master *keystore.Master) string {
	return hex.EncodeToString(master.Derive("master key check"))
}

// noNames is for looking at a Vault without a store.
type noNames struct{ keystore.Names }

func (c checker) vault(ctx context.Context) []finding {
	v, err := openVault(c.cfg, noNames{})
	if err != nil {
		return one(failed, "%s", err)
	}
	defer v.Close()
	l, err := v.Look(ctx)
	var found []finding
	add := func(s state, format string, a ...any) {
		found = append(found, finding{Version: l.Version, State: s, Detail: fmt.Sprintf(format, a...)})
	}
	if err != nil {
		add(failed, "%s", err)
		return found
	}
	for _, m := range l.Missing {
		add(failed, "the token may not %s: see deploy/vault/policy.hcl", m)
	}
	if l.All {
		add(warning, "the token may do everything: give the gateway one with deploy/vault/policy.hcl and no other")
	}
	if l.Unasked {
		add(warning, "the token may read credentials, but not ask what else it may (sys/capabilities-self)")
	}
	if l.Ends > 0 && !l.Again && !l.Renewable {
		add(warning, "the token ends in %s and cannot be renewed: AppRole gets the next by itself", l.Ends)
	}
	if olderBao(l.Version) {
		add(warning, "older than %s, which this version was tested with", testedBao)
	}
	if len(found) == 0 {
		add(good, "KV version 2 is at %s, and the token may do what the gateway needs; %s", c.cfg.VaultMount, tokenLife(l))
	}
	return found
}

func tokenLife(l keystore.VaultLooked) string {
	switch {
	case l.Ends == 0:
		return "it has no end"
	case l.Again:
		return fmt.Sprintf("it is good for %s, and AppRole gets the next", l.Ends)
	}
	return fmt.Sprintf("it is good for %s and can be renewed", l.Ends)
}

// olderBao reports whether version is that of an OpenBao older than the one that
// was tested. HashiCorp's Vault, which has numbers below 2, is not compared.
func olderBao(version string) bool {
	numbers := func(text string) (n [3]int) {
		for i, part := range strings.SplitN(text, ".", 3) {
			part, _, _ = strings.Cut(part, "-")
			n[i], _ = strconv.Atoi(part)
		}
		return n
	}
	have, want := numbers(version), numbers(testedBao)
	return have[0] == want[0] && (have[1] < want[1] || have[1] == want[1] && have[2] < want[2])
}

// traces sees whether somebody listens where traces are to go. The gateway does
// without, so it is a warning.
func (c checker) traces(ctx context.Context) []finding {
	u, err := url.Parse(c.cfg.OTel.Endpoint)
	if err != nil {
		return one(failed, "%s", err)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return one(warning, "nobody takes the traces: %s", err)
	}
	if err := conn.Close(); err != nil {
		return one(warning, "%s", err)
	}
	return one(good, "somebody listens")
}

// redisWhere says which servers redis_url names, without user and password.
func (c checker) redisWhere() string {
	_, rest, _ := strings.Cut(c.cfg.RedisURL.Reveal(), "://")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	where, _, _ := strings.Cut(rest, "?")
	return where
}

func (c checker) redis(ctx context.Context) []finding {
	client, err := redisdb.Open(c.cfg.RedisURL.Reveal(), redisdb.Options{})
	if err != nil {
		return []finding{{State: failed, Detail: err.Error()}}
	}
	defer client.Close()
	err = client.Check(ctx)
	f := finding{State: good, Detail: "does not evict"}
	if nodes := client.Health().Nodes; len(nodes) > 0 {
		f.Version = nodes[0].Version
		if len(nodes) > 1 {
			f.Detail += fmt.Sprintf("; %d masters", len(nodes))
		}
	}
	if err != nil {
		f.State, f.Detail = failed, err.Error()
	}
	return []finding{f}
}
