package config

import (
	"net/netip"
	"strings"
	"time"
)

// Default returns the configuration of a gateway that was told nothing. It
// passes Check.
func Default() Config {
	return Config{
		Listen:            "127.0.0.1:8080",
		OpsListen:         "127.0.0.1:8081",
		Data:              "./data",
		VaultMount:        "secret",
		VaultCredentials:  true,
		VaultTransitMount: "transit",
		VaultPrefix:       "bulkhead",
		S3Region:          "us-east-1",
		Demo:              "auto",
		MaxBodyBytes:      20 * MiB,
		BodyBytesTotal:    256 * MiB,
		BodyBytesCompany:  64 * MiB,
		MaxFormBytes:      100 * MiB,
		FormBytesTotal:    2 * GiB,
		FormBytesCompany:  512 * MiB,
		MaxStale:          5 * time.Minute,
		ShutdownDelay:     time.Second,
		ShutdownTimeout:   30 * time.Second,
		Limits:            Limits{ConcurrentRequests: 1000, ConcurrentTotal: 10000},
		Ledger:            Ledger{Sync: "interval", JournalBytes: 1024 * MiB},
		Budgets:           Budgets{DefaultMaxOutputTokens: 16384, Lease: 30 * time.Second, TimeZone: "UTC"},
		Knowledge: Knowledge{
			Deadline:           150 * time.Millisecond,
			VectorBytes:        512 * MiB,
			CompanyVectorBytes: 128 * MiB,
			FileBytes:          512 * MiB,
			CompanyBytes:       20 * 1024 * MiB,
			CompanyFiles:       100_000,
			CompanyStores:      1000,
			StoreFiles:         10_000,
			Transfers:          64,
			CompanyTransfers:   8,
			Ingest:             4,
			CompanyIngest:      2,
			ParseMemory:        512 * MiB,
			ParseTime:          30 * time.Second,
		},
		Memory: Memory{
			RetentionDays:        90,
			WindowTokens:         8000,
			CompanyConversations: 100_000,
			ConversationItems:    10_000,
			ConversationBytes:    16 << 20,
		},
		Upstream: Upstream{
			Connect: 5 * time.Second,
			Header:  5 * time.Minute,
			Idle:    2 * time.Minute,
			Total:   10 * time.Minute,

			OnDisconnect: "cancel",
		},
		Stream:    Stream{Keepalive: 15 * time.Second, WriteTimeout: 30 * time.Second},
		Providers: map[string]Provider{},
		Log:       Log{Level: "info", Format: "json"},
		OTel:      OTel{Sample: 1_000_000},
		Metrics:   Metrics{Companies: 1000},
	}
}

// Origins returns cors_origins one by one.
func (c *Config) Origins() []string { return strings.Fields(c.CORSOrigins) }

// Proxies returns trusted_proxies one by one, without those that are none.
func (c *Config) Proxies() (all []netip.Prefix) {
	for _, text := range strings.Fields(c.TrustedProxies) {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}
