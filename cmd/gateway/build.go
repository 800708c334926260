package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"bulkhead/audit"
	"bulkhead/config"
	"bulkhead/keystore"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/memory"
	"bulkhead/provider"
	"bulkhead/rag"
	"bulkhead/redisdb"
	"bulkhead/router"
	"bulkhead/store"
	"bulkhead/tenant"
	"bulkhead/web"
)

// house is the running gateway with what must be closed, in the order it was
// opened.
type house struct {
	gateway   *web.Gateway
	prices    *ledger.Prices
	retriever *rag.Retriever
	redis     *redisdb.Client // nil: there is none
	db        *store.DB
	log       *slog.Logger
	closers   []func() error
}

// closeTimeout bounds what is left to write at the end.
const closeTimeout = 15 * time.Second

func (h *house) close() error {
	var errs []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		errs = append(errs, h.closers[i]())
	}
	h.closers = nil
	return errors.Join(errs...)
}

// build opens and joins the parts of a gateway. After an error nothing is left
// open.
func build(ctx context.Context, cfg *config.Config, log *slog.Logger) (h *house, err error) {
	h = &house{log: log}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if h.prices, err = ledger.LoadPrices(); err != nil {
		return h, err
	}
	if err := web.CleanForms(formDir(cfg)); err != nil {
		return h, fmt.Errorf("cannot keep forms in the data folder: %w", err)
	}
	if h.prices, err = withEmbeddings(cfg, h.prices); err != nil {
		return h, err
	}
	var directory *tenant.Directory // told by the store, which it reads from
	if h.db, err = openStore(ctx, cfg, func(company string) { directory.Changed(company) }); err != nil {
		return h, err
	}
	h.closers = append(h.closers, h.db.Close)

	master, err := openMaster(ctx, cfg, h.db)
	if err != nil {
		return h, err
	}
	minter := tenant.NewMinter(master.Derive("key pepper"))
	tally := h.openTally()
	directory = tenant.NewDirectory(h.db, h.db, minter, tenant.Options{
		CompanyLimits: companyLimits(cfg),
		AllowPrivate:  func() bool { return h.gateway.AllowPrivate() }, // asked when requests come
		LoggedIn:      func(s tenant.Scope) { tally.LoggedIn(audit.Proved(s), s.Rule().ID) },
	})

	if err := h.ceilingZone(ctx, cfg, directory); err != nil {
		return h, err
	}
	following, stopFollowing := context.WithCancel(context.Background())
	h.closers = append(h.closers, func() error { stopFollowing(); return nil })

	limits, counted, err := h.openLimiter(cfg)
	if err != nil {
		return h, err
	}
	book, err := ledger.Open(ctx, h.db, ledger.Options{
		Journal: filepath.Join(cfg.Data, "journal"), Sync: ledgerSync[cfg.Ledger.Sync], JournalBytes: int64(cfg.Ledger.JournalBytes),
		Shipped: limits.Shipped, Process: process(limits),
		ScopeOf: func(ctx context.Context, company string) (s tenant.Scope, err error) {
			a, err := directory.Gateway().Begin(ctx, "ledger.recover", company)
			if err == nil {
				s, err = directory.Scope(ctx, a, company)
			}
			return s, err
		},
	})
	if err != nil {
		return h, err
	}
	h.closers = append(h.closers, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		return book.Close(ctx)
	})
	if err := h.recovered(ctx, book, limits); err != nil {
		return h, err
	}
	tracer, stop, err := openTracer(ctx, cfg)
	if err != nil {
		return h, err
	}
	h.closers = append(h.closers, stop)

	s, err := settings(cfg, h.prices)
	if err != nil {
		return h, err
	}
	h.closers = append(h.closers, func() error { h.gateway.CloseUpstream(); return nil })
	sealed := keystore.New(h.db, master, keystore.Options{}) // with Vault, too, for what is not a credential
	keys, asked, err := h.openKeys(cfg, sealed)
	if err != nil {
		return h, err
	}
	known, keeping, err := h.openKnowledge(cfg)
	if err != nil {
		return h, err
	}
	asked = append(append(append(asked, counted...), keeping...), storeBackend(cfg, h.db, directory))
	backends := web.WatchBackends(asked, h.backendChanged)
	h.closers = append(h.closers, backends.Close)
	h.gateway = web.New(web.Parts{
		Tenants: directory, Registry: h.db, Keys: keys, Lent: keystore.NewLender(h.db, master, keys, keystore.Options{}), CacheKey: master.Derive(promptCacheKey), Backends: backends, Audit: tally,
		Kept: h.db, Sealer: sealed, Responses: h.db,
		Limiter: limits,
		Ledger:  book, Prices: h.prices, Log: log, Tracer: tracer, Settings: s,
		WebhookKey: master.Derive(webhookKey), Knowledge: known, Agents: h.db, Retriever: h.retriever,
		Memory: h.openMemory(),
	})
	if err := h.gateway.LoadPrices(ctx); err != nil {
		return h, err
	}
	if err := directory.Follow(following, h.db, tenant.Watch{MaxStale: cfg.MaxStale, Changed: h.gateway.PolicyChanged, Failed: h.feedFailed}); err != nil {
		return h, err
	}
	go h.beginChains(following, directory)
	h.openUpkeep(following, directory, time.Duration(cfg.Ledger.RetentionDays)*24*time.Hour)
	return h, nil
}

// recoverTimeout bounds what an earlier process left to be written.
const recoverTimeout = time.Minute

// recovered tells what an earlier process left in the journal and waits until it
// is in the store: budgets are counted from there, and what else is counted of that
// process was never sent.
func (h *house) recovered(ctx context.Context, book *ledger.Ledger, limits limiter.Limiter) error {
	r := book.Recovered()
	if r.Closed+r.Swept > 0 {
		h.log.Info("entries of an earlier process are being written", "closed", r.Closed, "swept", r.Swept)
	}
	for _, err := range r.Damage {
		h.log.Error("the journal is damaged; what could be read of it is used", "error", err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	if err := book.Flush(ctx); err != nil {
		return fmt.Errorf("what an earlier process left in the journal cannot be written to the store: %w", err)
	}
	if l, ok := limits.(*limiter.Redis); ok && book.Stats().Unreadable == 0 {
		l.Over(r.Earlier)
	}
	return nil
}

// process is what others know of the calls of this process by, after it.
func process(limits limiter.Limiter) string {
	if l, ok := limits.(*limiter.Redis); ok {
		return l.Process()
	}
	return ""
}

// promptCacheKey is what the names of prompt caches at providers are derived from.
const promptCacheKey = "prompt cache"

// feedFailed tells of the store going away and coming back.
func (h *house) feedFailed(err error) {
	if err != nil {
		h.log.Error("the store does not say what changed; known keys go on for max_stale", "error", err.Error())
		return
	}
	h.log.Info("the store says again what changed")
}

// openMaster returns the master key. A database that was in use is never given
// a new one: that would open nothing in it, and the next start would find a
// file and go on with it.
func openMaster(ctx context.Context, cfg *config.Config, db *store.DB) (*keystore.Master, error) {
	used, err := db.HasOperatorKey(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(masterPath(cfg)); used && cfg.MasterKey.Empty() && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("master.key is missing in %s, but the database was sealed with one: put it back, or set master_key", cfg.Data)
	}
	master, err := loadMaster(ctx, cfg)
	if err != nil {
		return nil, err
	}
	check := masterKeyCheck(master)
	stored, err := db.Installation(ctx, store.MasterKeyCheck, check)
	if err != nil {
		return nil, err
	}
	if stored != check {
		return nil, errors.New("this is not the master key the database was sealed with: every key and credential in it would be refused")
	}
	db.KeyAudit(master.Derive(auditKey))
	return master, nil
}

// openKeys opens what keeps the companies' credentials: Vault, or the store. A
// Vault that is away does not keep the gateway from starting.
func (h *house) openKeys(cfg *config.Config, sealed *keystore.Keystore) (keystore.Keeper, []web.Backend, error) {
	if cfg.VaultAddr == "" || !cfg.VaultCredentials {
		return sealed, nil, nil
	}
	v, err := openVault(cfg, h.db)
	if err != nil {
		return nil, nil, err
	}
	h.closers = append(h.closers, v.Close)
	return v, []web.Backend{{Name: "vault", Ask: v.Check, Grace: backendGrace}}, nil
}

func openVault(cfg *config.Config, names keystore.Names) (*keystore.Vault, error) {
	o := vaultOptions(cfg)
	o.Mount, o.Prefix, o.Names = cfg.VaultMount, cfg.VaultPrefix, names
	return keystore.OpenVault(o)
}

// vaultOptions says where Vault is and who asks.
func vaultOptions(cfg *config.Config) keystore.VaultOptions {
	return keystore.VaultOptions{
		Addr: cfg.VaultAddr, CAFile: cfg.VaultCAFile, Namespace: cfg.VaultNamespace,
		Token: provider.NewSecret(cfg.VaultToken.Reveal()), RoleID: cfg.VaultRoleID, SecretID: provider.NewSecret(cfg.VaultSecretID.Reveal()),
	}
}

// openLimiter returns what counts limits and budgets: Redis for many gateways,
// this process for one. A Redis that is away does not keep the gateway from
// starting; calls are refused until it is there.
func (h *house) openLimiter(cfg *config.Config) (limiter.Limiter, []web.Backend, error) {
	o := limiter.Options{TotalConcurrent: unlimited(cfg.Limits.ConcurrentTotal), Book: h.db}
	if cfg.RedisURL.Empty() {
		return limiter.NewLocal(o), nil, nil
	}
	c, err := redisdb.Open(cfg.RedisURL.Reveal(), redisdb.Options{})
	if err != nil {
		return nil, nil, err
	}
	h.closers = append(h.closers, c.Close)
	h.redis = c
	name, _ := os.Hostname()
	l := limiter.OpenRedis(c, limiter.RedisOptions{Options: o, Gateway: name, Lease: cfg.Budgets.Lease, Allow: func(s tenant.Scope) limiter.Allowance {
		return limiter.Allowance(s.Company().Degraded)
	}})
	h.closers = append(h.closers, l.Close)
	ask := func(ctx context.Context) error {
		if err := c.Check(ctx); err != nil {
			return err
		}
		return l.Ready()
	}
	return l, []web.Backend{{Name: "redis", Ask: ask, Grace: backendGrace}}, nil
}

// unlimited turns the configuration's 0 for "no limit" into the limiter's.
func unlimited(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

func companyLimits(cfg *config.Config) tenant.Limits {
	return tenant.Limits{RequestsPerMinute: cfg.Limits.RequestsPerMinute, TokensPerMinute: cfg.Limits.TokensPerMinute, Concurrent: cfg.Limits.ConcurrentRequests}
}

// storeOptions say where the data is.
func storeOptions(cfg *config.Config, onChange func(string)) store.Options {
	o := store.Options{URL: cfg.PostgresURL.Reveal(), OwnerURL: cfg.PostgresOwnerURL.Reveal(), OnChange: onChange}
	if o.URL == "" {
		o.Path = filepath.Join(cfg.Data, "bulkhead.db")
	}
	return o
}

// openStore opens the store as the gateway uses it. A file of its own it brings
// up to this version; a database it shares is the owner's to migrate.
func openStore(ctx context.Context, cfg *config.Config, onChange func(string)) (*store.DB, error) {
	o := storeOptions(cfg, onChange)
	db, err := store.Open(ctx, o)
	if err != nil || o.URL != "" {
		return db, err
	}
	if err := db.Migrate(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// ledgerSync is what the configuration's words mean.
var ledgerSync = map[string]ledger.Sync{"always": ledger.SyncAlways, "interval": ledger.SyncDefault, "off": ledger.SyncOff}

// Bounds that no configuration changes.
const (
	maxAnswer   = 64 << 20         // bytes of one answer that is not a stream
	bodyTimeout = 30 * time.Second // for header and body of a request to arrive
	formTimeout = 5 * time.Minute  // likewise, of one that brings a form
)

// formDir is where forms are kept while their calls run.
func formDir(cfg *config.Config) string { return filepath.Join(cfg.Data, "forms") }

// settings makes of the configuration what a reload may change.
func settings(cfg *config.Config, prices *ledger.Prices) (web.Settings, error) {
	over := map[string]provider.Override{}
	for name, p := range cfg.Providers {
		over[name] = provider.Override{Kind: p.Kind, BaseURL: p.BaseURL}
	}
	vendors, problems := provider.Vendors(over, cfg.Upstream.AllowPrivate)
	if len(problems) > 0 {
		return web.Settings{}, errors.Join(problems...)
	}
	if prices == nil {
		var err error
		if prices, err = ledger.LoadPrices(); err != nil {
			return web.Settings{}, err
		}
	}
	embeddings, err := embeddingsService(cfg)
	if err != nil {
		return web.Settings{}, err
	}
	u := cfg.Upstream
	return web.Settings{
		Embeddings: embeddings,
		Router:     router.New(vendors, prices),
		Upstream: provider.NewClient(provider.Options{
			Timeouts:     provider.Timeouts{Connect: u.Connect, Header: u.Header, Idle: u.Idle, Total: u.Total},
			AllowPrivate: u.AllowPrivate,
		}),
		Vendors: vendors,
		MaxBody: int64(cfg.MaxBodyBytes), MaxAnswer: maxAnswer,
		BodiesTotal: int64(cfg.BodyBytesTotal), BodiesPerCompany: int64(cfg.BodyBytesCompany), BodyTimeout: bodyTimeout,
		FormDir: formDir(cfg), MaxForm: int64(cfg.MaxFormBytes), FormsTotal: int64(cfg.FormBytesTotal), FormsPerCompany: int64(cfg.FormBytesCompany), FormTimeout: formTimeout,
		Origins:          cfg.Origins(),
		TrustedProxies:   cfg.Proxies(),
		DefaultMaxOutput: cfg.Budgets.DefaultMaxOutputTokens,
		Keepalive:        cfg.Stream.Keepalive, WriteTimeout: cfg.Stream.WriteTimeout,
		Drain:           u.OnDisconnect == tenant.Drain,
		Knowledge:       knowledgeSettings(cfg),
		Memory:          memorySettings(cfg),
		CompanyBaseURLs: u.CompanyBaseURLs, AllowPrivate: u.AllowPrivate, MetricCompanies: cfg.Metrics.Companies,
	}, nil
}

// openMemory returns what conversations need.
func (h *house) openMemory() *web.Memory {
	var cache memory.Cache = memory.NewLocal(nil)
	if h.redis != nil {
		cache = memory.NewRedis(h.redis)
	}
	chats := memory.New(h.db, cache)
	h.closers = append(h.closers, chats.Close)
	return &web.Memory{Store: h.db, Chats: chats, Retention: h.db}
}

func memorySettings(cfg *config.Config) web.MemorySettings {
	m := &cfg.Memory
	return web.MemorySettings{
		Limits: memory.Limits{Conversations: m.CompanyConversations, Items: m.ConversationItems, Bytes: int64(m.ConversationBytes)},
		Window: m.WindowTokens, Days: m.RetentionDays,
	}
}

// reload applies the configuration as it now stands, or keeps the old one.
func (h *house) reload(old *config.Config, file string, level *slog.LevelVar) *config.Config {
	cfg, err := config.Load(file, os.Environ())
	if err == nil {
		var s web.Settings
		if s, err = settings(cfg, h.prices); err == nil {
			h.gateway.Reload(s)
		}
	}
	h.gateway.Reloaded(err == nil)
	if err != nil {
		h.log.Error("the configuration was not reloaded; the old one stays", "error", err.Error())
		return old
	}
	level.Set(cfg.Log.SlogLevel())
	h.log.Info("the configuration was reloaded", "need_restart", cfg.Restart(old))
	return cfg
}

func listen(addr string, t config.TLS) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	if t.Cert == "" {
		return l, nil
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot load the certificate: %w", err)
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}), nil
}
