// Package web is the life of a request and every HTTP surface of the gateway.
//
// chat.go is where to begin: one function is the whole life of a call to a
// model, top to bottom. routes.go is the table of every path there is, with who
// may call it. error.go is the only place that turns a fault into a status.
//
// Bytes that fasthttp hands out belong to the next request, which may be
// another company's, once the handler has returned: what is kept is copied at
// the edge, and the RequestCtx never leaves this package.
package web

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/trace"

	"bulkhead/audit"
	"bulkhead/keystore"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/provider"
	"bulkhead/rag"
	"bulkhead/router"
	"bulkhead/tenant"
)

// Parts is what a Gateway is made of. All of it is required but Tracer, Backends
// and Audit.
type Parts struct {
	Tenants  *tenant.Directory
	Registry Registry
	Keys     keystore.Keeper
	// Lent gives out what the operator lends; nil: nothing.
	Lent *keystore.Lender
	// CacheKey is what the names of prompt caches are derived from where a
	// credential is lent, of at least 32 bytes.
	CacheKey []byte
	Backends *Backends // the servers that readiness and metrics tell of
	// Audit counts refusals and reads; nil: they leave no rows.
	Audit *audit.Tally
	// WebhookKey is what the secrets of webhooks are derived from, of at least 32
	// bytes. Without one there are no spend alerts.
	WebhookKey []byte
	// Kept and Sealer are what Idempotency-Key needs; nil: the header has no effect
	// here and is passed on.
	Kept   KeptCalls
	Sealer Sealer
	// Responses notes whose the responses are that providers keep; nil: nobody's.
	Responses Responses
	Limiter   limiter.Limiter
	Ledger    *ledger.Ledger
	Prices    *ledger.Prices
	Log       *slog.Logger
	Tracer    trace.Tracer // nil: no spans
	Agents    AgentStore
	Retriever *rag.Retriever // finds what agents know; nil: nothing
	Settings  Settings
	// Knowledge is what files and vector stores need; nil: there are none.
	Knowledge *Knowledge
	Memory    *Memory // what conversations need; nil: there are none
}

// Settings are what a reload may change. They are one immutable snapshot: a
// request sees one version of them.
type Settings struct {
	Router   *router.Router
	Upstream *provider.Client
	Vendors  map[string]*provider.Vendor
	// Embeddings is the operator's service; nil: there is none.
	Embeddings *EmbeddingsService

	MaxBody          int64 // bytes of one request's body
	MaxAnswer        int64 // bytes of one answer that is not a stream
	BodiesTotal      int64 // bytes of bodies in flight, of all companies
	BodiesPerCompany int64
	BodyTimeout      time.Duration // to receive one request's body

	// Forms, which bring images and sound, are kept on disk while a call runs.
	FormDir         string
	MaxForm         int64 // bytes of one
	FormsTotal      int64 // of all companies
	FormsPerCompany int64
	FormTimeout     time.Duration // to receive one

	// TrustedProxies are the networks of proxies whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix

	Origins []string // of pages that may call from a browser; "*" is any

	Keepalive    time.Duration // silence in a stream after which a comment is sent
	WriteTimeout time.Duration // a client that takes nothing for so long is left

	DefaultMaxOutput int64 // tokens; see provider.BoundRules

	Drain     bool // calls are drained when their client leaves, unless the route's target says otherwise
	Knowledge KnowledgeSettings
	Memory    MemorySettings

	CompanyBaseURLs bool // companies may choose addresses
	AllowPrivate    bool // and these may be private: laboratories only
	MetricCompanies int  // companies with series of their own; the rest is "other"
}

// Gateway answers requests.
type Gateway struct {
	Parts
	settings atomic.Pointer[Settings]
	routes   *routeTable
	ops      *routeTable
	load     *load
	exports  exports
	master   master

	// files that are being received and sent
	transfers transfers

	public, operators *fasthttp.Server
	metrics           *metrics
	ready             atomic.Bool
	retiring          atomic.Bool

	health    router.Health
	unasked   unasked
	watches   clientWatches
	absurd    absurd
	counting  counting
	keptToday keptToday
	drains    drains

	prices  atomic.Pointer[ledger.Prices] // the list with the operator's overrides
	pricing sync.Mutex                    // one who reads them at a time: the last to begin has the last word

	reloadFailed atomic.Bool
	started      time.Time
}

// New returns a Gateway that is not ready until Ready is called.
func New(p Parts) *Gateway {
	g := &Gateway{Parts: p, load: newLoad(), started: time.Now()}
	g.prices.Store(p.Prices)
	g.Reload(p.Settings)
	g.metrics = newMetrics(g)
	g.routes, g.ops = newRouteTable(publicRoutes), newRouteTable(opsRoutes)
	g.public, g.operators = g.server(g.serve), g.server(g.serveOps)
	g.public.ConnState = g.unasked.state
	return g
}

// Reload makes requests that begin from now on see s. Calls under way end with
// what they began with.
func (g *Gateway) Reload(s Settings) {
	if old := g.settings.Swap(&s); old != nil && old.Upstream != s.Upstream {
		old.Upstream.Close() // closes connections that nobody uses
	}
}

// AllowPrivate says whether companies' addresses may be private ones.
func (g *Gateway) AllowPrivate() bool { return g.settings.Load().AllowPrivate }

// Reloaded says whether the last reload of the configuration succeeded.
func (g *Gateway) Reloaded(ok bool) { g.reloadFailed.Store(!ok) }

// CloseUpstream closes the connections to providers.
func (g *Gateway) CloseUpstream() { g.settings.Load().Upstream.Close() }

// Ready says whether the gateway should be sent requests.
func (g *Gateway) Ready(yes bool) { g.ready.Store(yes) }

// InFlight returns the number of calls under way.
func (g *Gateway) InFlight() int { return g.load.calls() }

// PolicyChanged is told of a company whose policy changed, here or at another
// gateway, after the Directory has forgotten it. If the company may not work any
// more, what is under way for it ends; of one that was erased nothing stays in
// memory. It returns false if it is to be told again: it cannot be seen whether
// the company may work, or its calls are still ending.
func (g *Gateway) PolicyChanged(company string) bool {
	if company == tenant.OperatorPrices {
		return g.operatorPricesChanged()
	}
	if !g.busy(company) && !g.metrics.has(company) && (g.Retriever == nil || !g.Retriever.Has(company)) && (g.Memory == nil || !g.Memory.Chats.Has(company)) {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), manageTimeout)
	defer cancel()
	status, err := g.Tenants.Status(ctx, company)
	if err != nil {
		g.Log.Error("cannot see whether a company may go on; its calls go on until it can be seen", "company", company, "error", err.Error())
		return false
	}
	if status != tenant.Active {
		g.EndCompany(company)
	}
	if status == tenant.Erased {
		if g.load.busy(company) {
			return false // they count themselves when they end
		}
		g.Keys.Forget(company)
		if g.Sealer != nil {
			g.Sealer.Forget(company)
		}
		if g.Retriever != nil {
			g.Retriever.Forget(company)
		}
		if g.Memory != nil {
			g.Memory.Chats.Evict(company)
		}
		g.metrics.forget(company)
	}
	g.metrics.renew(company)
	return true
}

// busy reports whether something is under way here for a company.
func (g *Gateway) busy(company string) bool {
	return g.load.busy(company) || g.transfers.busy(company) || g.Knowledge != nil && g.Knowledge.Ingest.Busy(company)
}

// EndCompany cancels what is under way for a company and reports how many calls
// that were.
func (g *Gateway) EndCompany(company string) int {
	g.endKnowledge(company)
	return g.load.cancel(company)
}

// Serve answers on the public listener until Shutdown.
func (g *Gateway) Serve(l net.Listener) error { return g.public.Serve(l) }

// ServeOps answers on the operator's listener until Shutdown.
func (g *Gateway) ServeOps(l net.Listener) error { return g.operators.Serve(l) }

// server returns a fasthttp server with the settings that streaming and hostile
// clients need; what each one prevents stands beside it.
func (g *Gateway) server(h fasthttp.RequestHandler) *fasthttp.Server {
	s := g.settings.Load()
	return &fasthttp.Server{
		Handler:                      h,
		ErrorHandler:                 g.serveBroken,
		Logger:                       quiet{},
		NoDefaultServerHeader:        true,
		NoDefaultDate:                false,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		StreamRequestBody:            true, // the key is checked before the body is taken
		ReadBufferSize:               16 << 10,
		ReadTimeout:                  s.BodyTimeout, // of header and body together: slowloris
		WriteTimeout:                 s.WriteTimeout,
		IdleTimeout:                  75 * time.Second,
		CloseOnShutdown:              true,
		MaxIdleWorkerDuration:        10 * time.Second,
		Concurrency:                  256 * 1024,
		SecureErrorLogMessage:        true,
		HeaderReceived:               g.bodyConfig,
	}
}

// bodyConfig gives a form, which may be large, more time to arrive than JSON.
func (g *Gateway) bodyConfig(h *fasthttp.RequestHeader) (c fasthttp.RequestConfig) {
	if s := g.settings.Load(); bytes.HasPrefix(h.ContentType(), []byte("multipart/form-data")) && s.FormTimeout > s.BodyTimeout {
		c.ReadTimeout = s.FormTimeout
	}
	return c
}

// quiet drops what fasthttp would print for every client that leaves. What a
// call ended with is logged once, by its end.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// Retire begins the end, before Shutdown: readiness fails, and until ctx is over
// calls are still taken, each answer saying that its connection closes. A
// balancer has time to choose others, and a client that keeps its connection goes
// elsewhere with the next call instead of seeing it break. It returns at once
// where nobody is connected.
func (g *Gateway) Retire(ctx context.Context) {
	g.Ready(false)
	g.retiring.Store(true)
	if g.public.GetOpenConnectionsCount() > 0 {
		<-ctx.Done()
	}
}

// Shutdown stops accepting, lets calls end until ctx is over, then cancels those
// that are left. The operator's listener answers until the end.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.Ready(false)
	closed := make(chan struct{})
	go g.unasked.hurry(closed)
	err := g.public.ShutdownWithContext(ctx)
	close(closed)
	g.transfers.cancel("")
	if n := g.load.cancelAll(); n > 0 {
		g.Log.Warn("calls are cut off at shutdown", "calls", n)
	}
	last, cancel := context.WithTimeout(context.Background(), cutTimeout)
	defer cancel()
	err = errors.Join(ignoreTimeout(err), g.load.allIdle(last))
	return errors.Join(err, ignoreTimeout(g.operators.ShutdownWithContext(last)))
}

// cutTimeout is how long calls that were cut off may take to write themselves
// down.
const cutTimeout = 5 * time.Second

// ignoreTimeout returns err, unless it is that time was over.
func ignoreTimeout(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
