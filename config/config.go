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
// This file is also the source of docs/config.md and docs/example.yaml: run
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

// Limits are the limits of a company that has none of its own.
type Limits struct {
	// Requests of one company in a rolling minute; 0 is no limit.
	// Default 0, allowed 0..1000000000.
	RequestsPerMinute int64 `yaml:"requests_per_minute" allowed:"0..1000000000" restart:"yes"`

	// Tokens of one company in a rolling minute, in and out; 0 is no limit.
	// Default 0, allowed 0..1000000000000.
	TokensPerMinute int64 `yaml:"tokens_per_minute" allowed:"0..1000000000000" restart:"yes"`

	// Requests of one company being answered at one time, open streams included;
	// 0 is no limit.
	// Default 1000, allowed 0..1000000.
	ConcurrentRequests int64 `yaml:"concurrent_requests" allowed:"0..1000000" restart:"yes"`

	// Requests of all companies being answered at one time, open streams
	// included; 0 is no limit. An open stream costs about 50 KB of memory.
	// Default 10000, allowed 0..1000000.
	ConcurrentTotal int64 `yaml:"concurrent_total" allowed:"0..1000000" restart:"yes"`
}

// Ledger is about what every attempt cost.
type Ledger struct {
	// When the journal in the data folder is on the disk: always is before a
	// call is sent and again before its end is told, which costs two waits for
	// the disk; interval is every 10 ms; off leaves it to the system. A killed
	// process loses nothing either way: this is about the death of the machine.
	// Default interval.
	Sync string `yaml:"sync" oneof:"always|interval|off" restart:"yes"`

	// How large the journal may become while the store is away. Above it calls
	// are refused, because what they cost could not be written down.
	// Default 1GiB, allowed 1MiB..1024GiB.
	JournalBytes Size `yaml:"journal_bytes" allowed:"1MiB..1024GiB" restart:"yes"`

	// How many days the entries of a day are kept after its end; 0 is for ever.
	// What days came to stays, but nothing of them can be exported any more. At
	// least 70, so that every budget that runs can be counted to the last entry.
	// Default 0, allowed 0, 70..36500.
	RetentionDays int `yaml:"retention_days" allowed:"0, 70..36500" restart:"yes"`
}

// Budgets is what holds for all budgets.
type Budgets struct {
	// Longest answer, in tokens, of a call that does not say how long it may be,
	// where its model allows more: a call is held at the cost of that.
	// Default 16384, allowed 16..1000000.
	DefaultMaxOutputTokens int64 `yaml:"default_max_output_tokens" allowed:"16..1000000"`

	// How long what a gateway holds stays held when nothing is heard of it. Then
	// it is booked whole. Only with redis_url.
	// Default 30s, allowed 5s..10m.
	Lease time.Duration `yaml:"lease" allowed:"5s..10m" restart:"yes"`

	// The operator's time zone, by whose days the ceilings count: a name of the IANA
	// time zone database, such as Europe/Berlin. Periods that run when it changes run
	// on to their end, and until all are those of the new zone, for up to two months,
	// another change waits.
	// Default UTC.
	TimeZone string `yaml:"time_zone" restart:"yes"`
}

// Embeddings is the operator's own service for embeddings. What companies use of
// it is on their ledgers.
type Embeddings struct {
	// Where /embeddings is in OpenAI's form: an http or https URL up to and without
	// that. Empty: companies that choose no model are searched by words alone.
	// Default empty.
	BaseURL string `yaml:"base_url"`

	// The model, as the service calls it.
	// Default empty.
	Model string `yaml:"model"`

	// The service's key; empty where it takes none.
	// Default empty.
	APIKey Secret `yaml:"api_key"`

	// What a company is billed, in millionths of a USD per million tokens; 0 is
	// nothing. It counts for the company's ceiling, without which a company cannot
	// use what costs something.
	// Default 0, allowed 0..1000000000.
	Price int64 `yaml:"micro_usd_per_million_tokens" allowed:"0..1000000000" restart:"yes"`
}

// Knowledge is about files and vector stores.
type Knowledge struct {
	// How long a call of an agent waits for what it knows, beyond the time of the
	// embedder. Then it goes on without, and says so.
	// Default 150ms, allowed 1ms..10s.
	Deadline time.Duration `yaml:"deadline" allowed:"1ms..10s" restart:"yes"`

	// Vectors held in memory, all companies together, where milvus_addr is empty.
	// Default 512MiB, allowed 1MiB..1024GiB.
	VectorBytes Size `yaml:"vector_bytes" allowed:"1MiB..1024GiB" restart:"yes"`

	// Vectors of one company held in memory. A vector store that is larger is read
	// from the database for each search.
	// Default 128MiB, allowed 1MiB..1024GiB.
	CompanyVectorBytes Size `yaml:"company_vector_bytes" allowed:"1MiB..1024GiB" restart:"yes"`

	// Largest file. It is never in memory as a whole.
	// Default 512MiB, allowed 1KiB..5GiB.
	FileBytes Size `yaml:"file_bytes" allowed:"1KiB..5GiB"`

	// All files of one company.
	// Default 20GiB, allowed 1KiB..1024GiB.
	CompanyBytes Size `yaml:"company_bytes" allowed:"1KiB..1024GiB"`

	// How many files one company has at most.
	// Default 100000, allowed 1..10000000.
	CompanyFiles int64 `yaml:"company_files" allowed:"1..10000000"`

	// How many vector stores one company has at most.
	// Default 1000, allowed 1..1000000.
	CompanyStores int64 `yaml:"company_stores" allowed:"1..1000000"`

	// How many files one vector store has at most.
	// Default 10000, allowed 1..1000000.
	StoreFiles int64 `yaml:"store_files" allowed:"1..1000000"`

	// Files being received and sent at one time, all companies together. One that
	// goes to S3 takes 5 MiB of memory.
	// Default 64, allowed 1..10000.
	Transfers int `yaml:"transfers" allowed:"1..10000"`

	// The same of one company.
	// Default 8, allowed 1..10000.
	CompanyTransfers int `yaml:"company_transfers" allowed:"1..10000"`

	// Files being taken into vector stores at one time by this gateway.
	// Default 4, allowed 1..256.
	Ingest int `yaml:"ingest" allowed:"1..256" restart:"yes"`

	// The same of one company, by all gateways.
	// Default 2, allowed 1..256.
	CompanyIngest int `yaml:"company_ingest" allowed:"1..256" restart:"yes"`

	// Memory of the process that reads a PDF, DOCX or HTML file; the file may be a
	// quarter of it.
	// Default 512MiB, allowed 64MiB..64GiB.
	ParseMemory Size `yaml:"parse_memory" allowed:"64MiB..64GiB" restart:"yes"`

	// Time that process may take.
	// Default 30s, allowed 1s..10m.
	ParseTime time.Duration `yaml:"parse_time" allowed:"1s..10m" restart:"yes"`
}

// Upstream is about calls to providers. Each timeout is of one attempt.
type Upstream struct {
	// Time to connect, TLS included.
	// Default 5s, allowed 10ms..5m.
	Connect time.Duration `yaml:"connect" allowed:"10ms..5m"`

	// Time from the request being sent to the head of the answer. An answer that
	// is not streamed has no head before the model is done, so this also bounds
	// those. At most total.
	// Default 5m, allowed 10ms..1h.
	Header time.Duration `yaml:"header" allowed:"10ms..1h"`

	// Longest silence inside an answer. Models that think send nothing meanwhile.
	// Default 2m, allowed 10ms..1h.
	Idle time.Duration `yaml:"idle" allowed:"10ms..1h"`

	// Time of a whole call. The official SDKs give up after 10 minutes too.
	// Default 10m, allowed 10ms..24h.
	Total time.Duration `yaml:"total" allowed:"10ms..24h"`

	// What becomes of a call whose client leaves, unless the target of a company's
	// route says otherwise: cancel ends it at the provider, and what was generated is
	// estimated; drain reads it to its end, bounded by total, and books what the
	// provider says. 1,000 calls are drained at one time, 100 of one company; others
	// are cancelled.
	// Default cancel.
	OnDisconnect string `yaml:"on_disconnect" oneof:"cancel|drain"`

	// Whether a company may name the address of its provider in a credential.
	// Such an address is dialled only if it is https and its IP is public.
	// Default false.
	CompanyBaseURLs bool `yaml:"company_base_urls"`

	// Lifts that rule: companies may reach http and private addresses, so the
	// gateway's whole network. For laboratories.
	// Default false.
	AllowPrivate bool `yaml:"allow_private"`
}

// Stream is about streamed answers on their way to the client.
type Stream struct {
	// A comment line is sent after this much silence, so that proxies between
	// keep the connection open; 0 sends none.
	// Default 15s, allowed 0, 1s..10m.
	Keepalive time.Duration `yaml:"keepalive" allowed:"0, 1s..10m"`

	// How long one write may wait for a client that does not read, before the
	// stream is cut and the provider's call cancelled.
	// Default 30s, allowed 100ms..10m.
	WriteTimeout time.Duration `yaml:"write_timeout" allowed:"100ms..10m" restart:"yes"`
}

// Provider is one provider of the operator, who is trusted with its address.
type Provider struct {
	// The form this provider speaks.
	Kind string `yaml:"kind" oneof:"openai|azure|groq|mistral|deepseek|xai|together|fireworks|openrouter|perplexity|cerebras|anthropic|gemini|ollama|vllm|custom"`

	// Where it is: an http or https URL up to and without the path of the call,
	// such as https://api.example.com/v1, without user, query and fragment.
	// Empty: the vendor's own address; azure, vllm and custom have none and need it.
	BaseURL string `yaml:"base_url"`
}

// Log is about the log.
type Log struct {
	// Least level that is written.
	// Default info.
	Level string `yaml:"level" oneof:"debug|info|warn|error"`

	// json is for machines, text for people.
	// Default json.
	Format string `yaml:"format" oneof:"json|text" restart:"yes"`
}

// OTel is about traces.
type OTel struct {
	// URL of the collector, such as http://127.0.0.1:4318. Empty is off.
	// Default empty.
	Endpoint string `yaml:"endpoint" restart:"yes"`

	// How many requests of a million are traced.
	// Default 1000000, allowed 0..1000000.
	Sample int `yaml:"sample" allowed:"0..1000000" restart:"yes"`

	// Headers sent to the collector, as in OTEL_EXPORTER_OTLP_HEADERS:
	// name=value, separated by commas, values percent-encoded.
	// Default empty.
	Headers Secret `yaml:"headers" restart:"yes"`
}

// Metrics is about metrics.
type Metrics struct {
	// How many companies get series of their own; the others share the company
	// label "other".
	// Default 1000, allowed 0..1000000.
	Companies int `yaml:"companies" allowed:"0..1000000"`
}

// TLS is about HTTPS on the clients' listener.
type TLS struct {
	// PEM file of the certificate, followed by the intermediate ones.
	// Default empty.
	Cert string `yaml:"cert" restart:"yes"`

	// PEM file of the certificate's private key.
	// Default empty.
	Key string `yaml:"key" restart:"yes"`
}
