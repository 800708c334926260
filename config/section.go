package config

import "time"

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

// Memory is about conversations.
type Memory struct {
	// For how many days after its last turn a conversation is kept, of companies
	// that have chosen no time of their own; 0 is for ever.
	// Default 90, allowed 0..36500.
	RetentionDays int64 `yaml:"retention_days" allowed:"0..36500"`

	// Tokens of earlier turns that go before a turn of a conversation, where its
	// agent does not say otherwise.
	// Default 8000, allowed 0..1000000.
	WindowTokens int64 `yaml:"window_tokens" allowed:"0..1000000"`

	// How many conversations one company has at most.
	// Default 100000, allowed 1..100000000.
	CompanyConversations int64 `yaml:"company_conversations" allowed:"1..100000000"`

	// How many items one conversation has at most.
	// Default 10000, allowed 1..1000000.
	ConversationItems int64 `yaml:"conversation_items" allowed:"1..1000000"`

	// Bytes of the items of one conversation.
	// Default 16MiB, allowed 1KiB..1GiB.
	ConversationBytes Size `yaml:"conversation_bytes" allowed:"1KiB..1GiB"`
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
