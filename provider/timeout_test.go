package provider

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
)

// both runs f against an HTTP/1.1 upstream, in both ways, and an HTTP/2 one.
func both(t *testing.T, times Timeouts, h http.HandlerFunc, f func(t *testing.T, u *upstream)) {
	t.Helper()
	plain(t, func(t *testing.T, open opens) { f(t, newPlain(t, open, times, h)) })
	t.Run("h2", func(t *testing.T) { f(t, newUpstream(t, times, h)) })
}

// left returns a channel that says when a handler's client went away, and the
// function the handler calls.
func left() (<-chan struct{}, func(*http.Request)) {
	ch := make(chan struct{}, 64)
	return ch, func(r *http.Request) {
		_, _ = io.ReadAll(r.Body) // the server notices a close only then
		<-r.Context().Done()
		ch <- struct{}{}
	}
}

// soon bounds what must happen at once. DESIGN allows 1 s; a busy machine that
// runs many tests may need longer to schedule it.
const soon = 20 * time.Second

func within(t *testing.T, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(soon):
		t.Errorf("%s: not within %s", what, soon)
	}
}

func wantTimeout(t *testing.T, err error, started time.Time, limit time.Duration, part string) {
	t.Helper()
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Kind != fault.Timeout || !e.Retriable || !strings.Contains(e.Message, part) {
		t.Errorf("%#v", err)
	}
	if took := time.Since(started); took < limit || took > limit+soon {
		t.Errorf("after %s, the limit is %s", took, limit)
	}
}

func TestHeaderTimeout(t *testing.T) {
	gone, wait := left()
	times := Timeouts{Header: time.Second} // enough for the call to arrive
	both(t, times, func(_ http.ResponseWriter, r *http.Request) { wait(r) }, func(t *testing.T, u *upstream) {
		start := time.Now()
		_, err := u.send(t.Context())
		wantTimeout(t, err, start, times.Header, "did not answer")
		within(t, gone, "the upstream sees the end")
	})
}

func TestIdleTimeout(t *testing.T) {
	gone, wait := left()
	times := Timeouts{Idle: 60 * time.Millisecond, Header: 20 * time.Second}
	both(t, times, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		wait(r)
	}, func(t *testing.T, u *upstream) {
		r, err := u.send(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		start := time.Now()
		b, err := io.ReadAll(r.Body)
		if string(b) != "data: 1\n\n" {
			t.Errorf("%q", b)
		}
		wantTimeout(t, err, start, times.Idle, "silent")
		within(t, gone, "the upstream sees the end")
		if _, again := r.Body.Read(make([]byte, 1)); again != err {
			t.Errorf("the second read: %v", again)
		}
	})
}

// TestSlowCaller: a caller that takes its time is no silence of the upstream.
func TestSlowCaller(t *testing.T) { plain(t, testSlowCaller) }

func testSlowCaller(t *testing.T, open opens) {
	const size = 8 << 20 // more than the buffers on the way hold
	times := Timeouts{Idle: time.Second}
	u := newPlain(t, open, times, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", size))
	})
	r, err := u.send(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	busy := time.NewTimer(3 * times.Idle) // the work between two reads
	if _, err := r.Body.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	<-busy.C
	if b, err := io.ReadAll(r.Body); err != nil || len(b) != size-1 {
		t.Errorf("%d %v", len(b), err)
	}
}

func TestTotalTimeout(t *testing.T) {
	gone, wait := left()
	times := Timeouts{Idle: 10 * time.Second, Total: time.Second}
	both(t, times, func(w http.ResponseWriter, r *http.Request) {
		for range 8 {
			_, _ = io.WriteString(w, ": drip\n\n")
			_ = http.NewResponseController(w).Flush()
		}
		wait(r)
	}, func(t *testing.T, u *upstream) {
		start := time.Now()
		r, err := u.send(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		_, err = io.ReadAll(r.Body)
		wantTimeout(t, err, start, times.Total, "did not finish")
		within(t, gone, "the upstream sees the end")
	})
	t.Run("before the header", func(t *testing.T) {
		u := newPlain(t, openClient, times, func(_ http.ResponseWriter, r *http.Request) { wait(r) })
		start := time.Now()
		_, err := u.send(t.Context())
		wantTimeout(t, err, start, times.Total, "did not finish")
	})
}

// TestErrorBodyHangs: a status counts even if its text never ends.
func TestErrorBodyHangs(t *testing.T) { plain(t, testErrorBodyHangs) }

func testErrorBodyHangs(t *testing.T, open opens) {
	_, wait := left()
	u := newPlain(t, open, Timeouts{Idle: 50 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After-Ms", "1500")
		w.WriteHeader(503)
		_, _ = io.WriteString(w, `{"error":{"mess`)
		_ = http.NewResponseController(w).Flush()
		wait(r)
	})
	_, err := u.send(t.Context())
	if e := fault.As(err); e.Kind != fault.Upstream || e.Status != 503 || !e.Retriable || e.RetryAfter != 1500*time.Millisecond {
		t.Errorf("%+v", e)
	}
}

// hang is a vendor that says 503 and never gets to the text.
type hang struct{}

func (hang) RoundTrip(r *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	context.AfterFunc(r.Context(), func() { pw.CloseWithError(r.Context().Err()) })
	return &http.Response{StatusCode: 503, Header: http.Header{}, Body: pr}, nil
}

// TestErrorBodyWait: however long the idle limit is, the next target is not kept
// waiting for the text of an error.
func TestErrorBodyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClient(Options{Sandbox: hang{}})
		start := time.Now()
		_, err := c.Send(t.Context(), Target{Vendor: Builtin()[Sandbox]}, Credential{}, &Call{Endpoint: openai.Chat})
		if e := fault.As(err); e.Status != 503 || !e.Retriable || time.Since(start) != maxErrorWait {
			t.Errorf("%+v after %s", e, time.Since(start))
		}
	})
}

func TestCancel(t *testing.T) {
	gone, wait := left()
	came := make(chan struct{}, 1)
	both(t, Timeouts{}, func(_ http.ResponseWriter, r *http.Request) { came <- struct{}{}; wait(r) }, func(t *testing.T, u *upstream) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { <-came; cancel() }()
		_, err := u.send(ctx)
		if _, isFault := errors.AsType[*fault.Error](err); isFault || !errors.Is(err, context.Canceled) {
			t.Errorf("%#v", err)
		}
		within(t, gone, "while waiting for the header")
	})
	both(t, Timeouts{}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		wait(r)
	}, func(t *testing.T, u *upstream) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, err := u.send(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if _, err := r.Body.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := r.Body.Read(make([]byte, 100)); !errors.Is(err, context.Canceled) {
			t.Errorf("%#v", err)
		}
		within(t, gone, "in the middle of the body")

		r, err = u.send(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		within(t, gone, "after Close")
	})
}

// TestCloseWhileReading: Close from another goroutine ends a Read that waits.
func TestCloseWhileReading(t *testing.T) {
	_, wait := left()
	both(t, Timeouts{}, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		wait(r)
	}, func(t *testing.T, u *upstream) {
		r, err := u.send(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{}, 1)
		go func() {
			_, _ = io.ReadAll(r.Body)
			done <- struct{}{}
		}()
		r.Body.Close()
		within(t, done, "the read ends")
	})
}

// TestCut: an answer that breaks off is an error that says so, never an end.
func TestCut(t *testing.T) { plain(t, testCut) }

func testCut(t *testing.T, open opens) {
	f := func(answer string) {
		t.Helper()
		raw := newRaw(t, func(c net.Conn, _ int) bool { _, _ = io.WriteString(c, answer); return false })
		c := open(t, Options{})
		target, cred := targetAt(t, "http://"+raw.addr+"/v1")
		r, err := c.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if !fault.Is(err, fault.Upstream) || !errors.Is(err, io.ErrUnexpectedEOF) || fault.As(err).Status != 502 || string(b) != "data" {
			t.Errorf("%q: %s %#v", answer, b, err)
		}
	}
	f("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ndata")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndata\r\nzz\r\n")
	u := newUpstream(t, Timeouts{}, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "data")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // RST_STREAM
	})
	r, err := u.send(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if _, err := io.ReadAll(r.Body); !fault.Is(err, fault.Upstream) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("h2: %#v", err)
	}
}
