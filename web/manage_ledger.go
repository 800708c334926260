package web

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/tenant"
)

const (
	exportPage    = 500              // entries read at once
	exportTimeout = 30 * time.Second // to read them
	exportsTotal  = 16               // exports under way at a time
	exportsEach   = 2                // of one company
)

// exports counts the exports under way.
type exports struct {
	mu        sync.Mutex
	total     int
	companies map[tenant.ID]int
}

func (x *exports) begin(id tenant.ID) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.companies[id] >= exportsEach {
		e := fault.New(fault.RateLimited, "%d exports of your company are under way. Wait for one to end.", exportsEach)
		e.RetryAfter = exportTimeout
		return e
	}
	if x.total >= exportsTotal {
		e := fault.New(fault.Unavailable, "Too many exports are under way. Try again.")
		e.RetryAfter = exportTimeout
		return e
	}
	if x.companies == nil {
		x.companies = map[tenant.ID]int{}
	}
	x.total++
	x.companies[id]++
	return nil
}

func (x *exports) end(id tenant.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.total--
	if x.companies[id]--; x.companies[id] == 0 {
		delete(x.companies, id)
	}
}

// exportFormat is a form in which the ledger is exported.
type exportFormat struct {
	mime   string
	header []byte
	append func(dst []byte, e *ledger.Entry) []byte
}

var exportFormats = map[string]exportFormat{
	"csv":   {"text/csv; charset=utf-8", ledger.AppendCSVHeader(nil), ledger.AppendCSV},
	"jsonl": {"application/jsonl", nil, ledger.AppendJSON},
}

// exportLedger writes the entries of a span of time, in their order, as long as
// that takes. An export that is cut off has no end of its body.
func (g *Gateway) exportLedger(r *request) (any, error) {
	name := r.query("format")
	if name == "" {
		name = "csv"
	}
	format, ok := exportFormats[name]
	if !ok {
		return nil, fault.Field("format", "format must be csv or jsonl.")
	}
	from, err := unixParam(r, "start_time")
	if err != nil {
		return nil, err
	}
	until, err := unixParam(r, "end_time")
	if err != nil {
		return nil, err
	}
	if until.IsZero() {
		until = time.Unix(maxUnix, 0)
	}
	if until.Before(from) {
		return nil, fault.Field("end_time", "end_time must not be before start_time.")
	}
	if err := g.exports.begin(r.scope.ID()); err != nil {
		return nil, err
	}
	g.Audit.Read(audit.Proved(r.scope), "ledger")
	h := &r.rc.Response.Header
	h.SetContentType(format.mime)
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="ledger.%s"`, name))
	h.Set("Cache-Control", "no-store")
	r.rc.SetStatusCode(fasthttp.StatusOK)
	r.rc.Response.ImmediateHeaderFlush = true
	r.rc.Response.SetBodyStream(&export{g: g, s: r.scope, id: r.id, conn: r.rc.Conn(), timeout: r.settings.WriteTimeout,
		format: format, from: from, until: until}, -1)
	return nil, nil
}

// export is the body of an export: see stream.
type export struct {
	g           *Gateway
	s           tenant.Scope
	id          string
	conn        net.Conn
	timeout     time.Duration // of a client that takes nothing
	format      exportFormat
	from, until time.Time
	once        sync.Once
}

// SupportsBodyWriteTo makes fasthttp use WriteTo.
func (x *export) SupportsBodyWriteTo() bool { return true }

// Read is never called: see SupportsBodyWriteTo.
func (x *export) Read([]byte) (int, error) { panic("BUG: an export is written, not read") }

// Close ends the export, on every path.
func (x *export) Close() error {
	x.once.Do(func() { x.g.exports.end(x.s.ID()) })
	return nil
}

// WriteTo writes page by page; nothing but a page is kept in memory.
func (x *export) WriteTo(w io.Writer) (n int64, err error) {
	defer func() {
		if p := recover(); p != nil {
			x.failed(panicked(p))
			err = errCutOff
		}
	}()
	out := append(make([]byte, 0, 1<<16), x.format.header...)
	after, more := "", true
	for more {
		some, next, err := x.read(after)
		if err != nil {
			x.failed(err)
			return n, errCutOff
		}
		after, more = next, next != ""
		for i := range some {
			out = x.format.append(out, &some[i])
		}
		if len(out) == 0 {
			continue
		}
		_ = x.conn.SetWriteDeadline(time.Now().Add(x.timeout))
		k, err := w.Write(out)
		if n += int64(k); err != nil {
			return n, err // the client left
		}
		out = out[:0]
	}
	return n, nil
}

// read reads the next page, unless the company may not work any more.
func (x *export) read(after string) ([]ledger.Entry, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), exportTimeout)
	defer cancel()
	status, err := x.g.Tenants.Status(ctx, x.s.ID().String())
	if err != nil {
		return nil, "", err
	}
	if status != tenant.Active {
		return nil, "", errEnded
	}
	return x.g.Registry.EntriesBetween(ctx, x.s, x.from, x.until, after, exportPage)
}

func (x *export) failed(err error) {
	x.g.Log.LogAttrs(context.Background(), slog.LevelError, "an export was cut off", slog.String("id", x.id),
		slog.String("company", x.s.ID().String()), slog.String("error", loggable(err)))
}
