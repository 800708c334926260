// Package config is the gateway's configuration: plain data, checked.
//
// There is one YAML file and one struct, Config. Every key can also be given in
// the environment as BULKHEAD_<PATH>, which wins over the file. Load reads both
// and reports every problem at once, each with its key and what would be right.
// An unknown key is a problem: a misspelt limit must not silently be no limit.
//
// The package opens nothing and reaches nobody. It reads the files a key names
// (secrets, certificates) to say early that they are missing.
//
// This file and section.go are also the source of docs/config.md and docs/example.yaml: run
// "go run ./config/gen" after changing it. The tags of a field are
//
//	yaml:"name"        the key
//	allowed:"0, 1..9"  values and ranges of a number, a size or a duration
//	oneof:"a|b"        the only values of a text
//	restart:"yes"      a change needs a restart, a reload does not apply it
//
// and its comment ends with the sentence "Default X." or "Default X, allowed
// Y.", which the generator holds against Default and the tags.
package config

import (
	"time"
)

// Config is the whole configuration. A Config that Load returned has passed
// Check, and is never changed afterwards: a reload makes a new one.
type Config struct {
	// Address of the API for clients, host:port. Without a host it is every
	// interface; port 0 takes any free port.
	// Default 127.0.0.1:8080.
	Listen string `yaml:"listen" restart:"yes"`

	// Address of the operator's listener, host:port: /admin, /metrics, /healthz,
	// /readyz and /debug/pprof. Keep it on loopback or a private network.
	// Default 127.0.0.1:8081.
	OpsListen string `yaml:"ops_listen" restart:"yes"`

	// Folder of everything the gateway keeps itself: database, journal, master
	// key. It is made if it is missing.
	// Default ./data.
	Data string `yaml:"data" restart:"yes"`

	// The key that seals all stored credentials: 32 bytes as 64 hex digits or as
	// base64. Empty: made at the first start in master.key in the data folder.
	// Who loses it loses every stored credential.
	// Default empty.
	MasterKey Secret `yaml:"master_key" restart:"yes"`

	// The PostgreSQL database of many gateways, as they use it at run time:
	// postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full. USER owns
	// nothing and is held by row-level security, or the gateway does not start.
	// All gateways of a database need the same master_key. Empty: SQLite in the
	// data folder, for one gateway.
	// Default empty.
	PostgresURL Secret `yaml:"postgres_url" restart:"yes"`

	// The same database as its owner uses it, for gateway migrate, which makes
	// the schema and the user of postgres_url. serve does not need it.
	// Default empty.
	PostgresOwnerURL Secret `yaml:"postgres_owner_url" restart:"yes"`

	// Redis, which then counts limits and budgets of many gateways together:
	// redis://[USER:PASSWORD@]HOST:PORT[/DB], rediss:// with TLS,
	// redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY or
	// redis+cluster://HOST:PORT,HOST:PORT. It must not evict: maxmemory-policy
	// noeviction. Empty: counted in process, for one gateway.
	// Default empty.
	RedisURL Secret `yaml:"redis_url" restart:"yes"`

	// Vault, which then keeps the companies' provider credentials (KV version 2):
	// https://HOST:PORT. Empty: sealed in the store.
	// Default empty.
	VaultAddr string `yaml:"vault_addr" restart:"yes"`

	// Vault's token, which is renewed as long as Vault allows. Either this or the
	// two of an AppRole.
	// Default empty.
	VaultToken Secret `yaml:"vault_token" restart:"yes"`

	// An AppRole at auth/approle, with which the gateway logs in again whenever
	// its token ends.
	// Default empty.
	VaultRoleID string `yaml:"vault_role_id" restart:"yes"`

	// The secret of vault_role_id.
	// Default empty.
	VaultSecretID Secret `yaml:"vault_secret_id" restart:"yes"`

	// Where KV version 2 is mounted.
	// Default secret.
	VaultMount string `yaml:"vault_mount" restart:"yes"`

	// What comes before "companies" in every path.
	// Default bulkhead.
	VaultPrefix string `yaml:"vault_prefix" restart:"yes"`

	// PEM file of the authorities that vouch for Vault; empty trusts the system's.
	// Default empty.
	VaultCAFile string `yaml:"vault_ca_file" restart:"yes"`

	// Whether Vault keeps the companies' credentials. false: they are sealed in the
	// store, and Vault only opens the master key (vault_transit_key).
	// Default true.
	VaultCredentials bool `yaml:"vault_credentials" restart:"yes"`

	// A key of Vault's engine transit that the master key is sealed with. Then
	// master_key, or master.key in the data folder, is what gateway master seal
	// makes of it, and no gateway starts without Vault. Empty: the master key is
	// there as it is.
	// Default empty.
	VaultTransitKey string `yaml:"vault_transit_key" restart:"yes"`

	// Where the engine transit is mounted.
	// Default transit.
	VaultTransitMount string `yaml:"vault_transit_mount" restart:"yes"`

	// Namespace in Vault Enterprise or OpenBao; empty is the root.
	// Default empty.
	VaultNamespace string `yaml:"vault_namespace" restart:"yes"`

	// The bucket for the companies' files, of any server that speaks S3:
	// https://HOST[:PORT]/BUCKET[/PREFIX]. It must not keep versions of what is
	// deleted. Empty: a folder in the data folder, for one gateway.
	// Default empty.
	S3URL string `yaml:"s3_url" restart:"yes"`

	// Its region.
	// Default us-east-1.
	S3Region string `yaml:"s3_region" restart:"yes"`

	// The key id of who may read, write, list and delete in the bucket.
	// Default empty.
	S3AccessKey string `yaml:"s3_access_key" restart:"yes"`

	// The secret of s3_access_key.
	// Default empty.
	S3SecretKey Secret `yaml:"s3_secret_key" restart:"yes"`

	// Whether a file is downloaded from S3 itself, at an address that is good for 5
	// minutes, instead of through the gateway. Clients must reach s3_url then.
	// Default false.
	S3Redirect bool `yaml:"s3_redirect"`

	// Milvus, which then searches the vectors of all companies: HOST:PORT, or an
	// https URL. Needed for many vectors, or for many gateways that search the same
	// ones often. Empty: searched in process.
	// Default empty.
	MilvusAddr string `yaml:"milvus_addr" restart:"yes"`

	// Milvus' user; empty where it has none.
	// Default empty.
	MilvusUser string `yaml:"milvus_user" restart:"yes"`

	// The password of milvus_user.
	// Default empty.
	MilvusPassword Secret `yaml:"milvus_password" restart:"yes"`

	// auto makes a company to play with at the first start, and writes its keys
	// to demo.json in the data folder, but only while listen is on loopback; off
	// never does.
	// Default auto.
	Demo string `yaml:"demo" oneof:"auto|off" restart:"yes"`

	// Networks of proxies in front of the gateway whose X-Forwarded-For is believed,
	// separated by spaces, such as 10.0.0.0/8. Keys that are allowed from certain
	// addresses only need it where there is one.
	// Default empty.
	TrustedProxies string `yaml:"trusted_proxies"`

	// Origins of pages that may call the gateway from a browser, separated by
	// spaces, such as https://app.example.com; * is any. A page needs a key to call,
	// and whoever can open the page can read the key.
	// Default empty.
	CORSOrigins string `yaml:"cors_origins"`

	// Largest body of one request. Above it the answer is 413.
	// Default 20MiB, allowed 1KiB..1GiB.
	MaxBodyBytes Size `yaml:"max_body_bytes" allowed:"1KiB..1GiB"`

	// Request bodies held in memory at one time, all companies together. What
	// comes on top is refused until there is room.
	// Default 256MiB, allowed 1KiB..1024GiB.
	BodyBytesTotal Size `yaml:"body_bytes_total" allowed:"1KiB..1024GiB"`

	// Request bodies of one company held in memory at one time; at least
	// max_body_bytes and at most body_bytes_total. What comes on top is refused
	// until there is room.
	// Default 64MiB, allowed 1KiB..1024GiB.
	BodyBytesCompany Size `yaml:"body_bytes_company" allowed:"1KiB..1024GiB"`

	// Largest form of one request, which is how images and sound are sent. Above it
	// the answer is 413.
	// Default 100MiB, allowed 1KiB..8GiB.
	MaxFormBytes Size `yaml:"max_form_bytes" allowed:"1KiB..8GiB"`

	// Forms kept on disk at one time, in the data folder, while their calls run: all
	// companies together. What comes on top is refused until there is room.
	// Default 2GiB, allowed 1KiB..1024GiB.
	FormBytesTotal Size `yaml:"form_bytes_total" allowed:"1KiB..1024GiB"`

	// Forms of one company on disk at one time; at least max_form_bytes and at most
	// form_bytes_total.
	// Default 512MiB, allowed 1KiB..1024GiB.
	FormBytesCompany Size `yaml:"form_bytes_company" allowed:"1KiB..1024GiB"`

	// How long keys that are already known keep working while the store cannot be
	// reached. Changes of policy are everywhere within a second or two while it can.
	// Default 5m, allowed 1s..24h.
	MaxStale time.Duration `yaml:"max_stale" allowed:"1s..24h" restart:"yes"`

	// How long calls are still taken after SIGTERM, while readiness says no and
	// each answer closes its connection: so that balancers and clients turn to
	// other gateways and no call is lost. Let it be longer than a balancer takes to
	// notice. It does not wait where nobody is connected.
	// Default 1s, allowed 0..10m.
	ShutdownDelay time.Duration `yaml:"shutdown_delay" allowed:"0..10m"`

	// How long streams may go on after that before they are cut; 0 cuts them at
	// once.
	// Default 30s, allowed 0, 1s..1h.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout" allowed:"0, 1s..1h"`

	// Limits of a company that has none of its own.
	Limits Limits `yaml:"limits"`
	// What every attempt cost, until it is in the store.
	Ledger Ledger `yaml:"ledger"`
	// What holds for all budgets.
	Budgets Budgets `yaml:"budgets"`
	// Files and vector stores.
	Knowledge Knowledge `yaml:"knowledge"`

	// What was said: conversations.
	Memory Memory `yaml:"memory"`
	// The operator's own service for embeddings, for companies that choose no model.
	Embeddings Embeddings `yaml:"embeddings"`
	// Calls to providers.
	Upstream Upstream `yaml:"upstream"`
	// Streamed answers on their way to the client.
	Stream Stream `yaml:"stream"`

	// Providers by NAME, added to the built-in ones or in place of the built-in
	// one of the same name. NAME is the first half of a model "NAME/model": 1 to
	// 64 of a-z, 0-9, ".", "_", "-", beginning with a letter or digit; sandbox,
	// agent and embeddings are taken. In the environment the whole map is one value, as
	// YAML or JSON, and takes the place of the file's map.
	// Default {}.
	Providers map[string]Provider `yaml:"providers"`

	// The log, on standard error.
	Log Log `yaml:"log"`
	// Traces by OpenTelemetry, sent as OTLP over HTTP. They hold no content.
	OTel OTel `yaml:"otel"`
	// Metrics for Prometheus, at /metrics of ops_listen.
	Metrics Metrics `yaml:"metrics"`
	// HTTPS on listen. Both files or none.
	TLS TLS `yaml:"tls"`
}
