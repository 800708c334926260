package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// switched is a backend that a test turns off and on.
type switched struct {
	err   atomic.Pointer[error]
	hangs atomic.Bool
	asked atomic.Int64
	free  chan struct{} // closed: nothing hangs any more
}

func (s *switched) ask(context.Context) error {
	s.asked.Add(1)
	if s.hangs.Load() {
		<-s.free // whatever its context says
	}
	if err := s.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *switched) fail(err error) { s.err.Store(&err) }

func TestBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &switched{free: make(chan struct{})}
		var told []string
		change := func(name string, err error) {
			if err == nil {
				err = errors.New("back")
			}
			told = append(told, name+" "+err.Error())
		}
		b := WatchBackends([]Backend{{Name: "store", Ask: s.ask, Grace: 10 * time.Second}}, change)
		if st := b.States()[0]; st.Err == nil || !st.Bad {
			t.Errorf("before it was asked: %+v", st)
		}
		is := func(what string, up, bad bool) {
			t.Helper()
			synctest.Wait()
			if st := b.States()[0]; (st.Err == nil) != up || st.Bad != bad || st.Name != "store" {
				t.Errorf("%s: %+v", what, st)
			}
		}
		is("asked", true, false)
		if len(told) != 0 {
			t.Errorf("told %q of the first good answer", told)
		}
		time.Sleep(time.Minute)
		is("for a minute", true, false)
		if n := s.asked.Load(); n < 10 || n > 14 {
			t.Errorf("asked %d times in a minute", n)
		}
		s.fail(errors.New("gone"))
		time.Sleep(askEvery)
		is("gone", false, false)
		time.Sleep(9 * time.Second)
		is("gone for less than its grace", false, false)
		time.Sleep(2 * time.Second)
		is("gone for longer", false, true)
		s.err.Store(nil)
		time.Sleep(askAgain)
		is("back", true, false)
		// It is told once of each, not of every answer.
		if strings.Join(told, ", ") != "store gone, store back" {
			t.Errorf("told %q", told)
		}
		// One that does not even end the question.
		s.hangs.Store(true)
		time.Sleep(askEvery + 2*askTimeout + time.Second)
		is("silent", false, false)
		time.Sleep(10 * time.Second)
		is("silent for long", false, true)
		close(s.free)
		s.hangs.Store(false)
		is("answers again", true, false)
		if err := errors.Join(b.Close(), b.Close()); err != nil {
			t.Error(err)
		}
		before := s.asked.Load()
		time.Sleep(time.Minute)
		if s.asked.Load() != before {
			t.Error("asked after Close")
		}
	})
}

// One that was never there has no grace, and is told of.
func TestBackendsNeverThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &switched{}
		s.fail(errors.New("gone"))
		told := 0
		b := WatchBackends([]Backend{{Name: "vault", Ask: s.ask, Grace: time.Hour}}, func(string, error) { told++ })
		defer b.Close()
		synctest.Wait()
		if st := b.States()[0]; st.Err == nil || !st.Bad || told != 1 {
			t.Errorf("%+v, told %d times", st, told)
		}
	})
}

// Readiness and metrics tell what is away, and never wait for it.
func TestReadiness(t *testing.T) {
	l := newLab(t, labOptions{})
	vault, db := &switched{free: make(chan struct{})}, &switched{free: make(chan struct{})}
	l.g.Backends = WatchBackends([]Backend{{Name: "postgres", Ask: db.ask, Grace: time.Hour}, {Name: "vault", Ask: vault.ask}}, nil)
	t.Cleanup(func() { close(vault.free); l.g.Backends.Close() })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go func() { _ = l.g.ServeOps(ln) }()
	get := func(path string) (int, string) {
		t.Helper()
		begin := time.Now()
		resp, err := l.client.Get("http://" + ln.Addr().String() + path)
		must(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		if took := time.Since(begin); took > patience/2 {
			t.Errorf("%s took %s", path, took)
		}
		return resp.StatusCode, string(text)
	}
	ready := func(query string, want int, status string, away ...string) {
		t.Helper()
		code, text := get("/readyz" + query)
		var h health
		if err := json.Unmarshal([]byte(text), &h); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, a := range h.Away {
			names = append(names, a.Backend+": "+a.Reason)
		}
		if code != want || h.Status != status || strings.Join(names, ", ") != strings.Join(away, ", ") || (h.Reason == "") != (code == http.StatusOK) {
			t.Errorf("/readyz%s is %d %s", query, code, text)
		}
	}
	up := func(want ...string) {
		t.Helper()
		_, text := get("/metrics")
		for _, line := range want {
			if !strings.Contains(text, "bulkhead_backend_up{backend="+line+"\n") {
				t.Errorf("no %s in the metrics", line)
			}
		}
	}
	settled := func(i int, up bool) {
		t.Helper()
		eventually(t, "the backend was asked", func() bool { return (l.g.Backends.States()[i].Err == nil) == up })
	}
	settled(0, true)
	settled(1, true)
	ready("", 200, "ok")
	up(`"postgres"} 1`, `"vault"} 1`)

	// Within its grace it is shown, and the gateway is ready.
	db.fail(errors.New(`no "way" there` + strings.Repeat(".", 1000)))
	settled(0, false)
	reason := (`no "way" there` + strings.Repeat(".", 1000))[:maxReason]
	ready("", 200, "ok", "postgres: "+reason)
	up(`"postgres"} 0`, `"vault"} 1`)

	vault.fail(errors.New("sealed"))
	settled(1, false)
	ready("", 503, "not ready", "postgres: "+reason, "vault: sealed")
	ready("?exclude=redis", 503, "not ready", "postgres: "+reason, "vault: sealed")
	ready("?exclude=vault", 200, "ok", "postgres: "+reason, "vault: sealed")
	ready("?exclude=postgres&exclude=vault", 200, "ok", "postgres: "+reason, "vault: sealed")
	if code, text := get("/healthz"); code != 200 || !strings.Contains(text, `"ok"`) {
		t.Errorf("/healthz is %d %s", code, text)
	}
	l.g.Ready(false)
	ready("?exclude=vault", 503, "not ready", "postgres: "+reason, "vault: sealed")
	l.g.Ready(true)

	// While it hangs nobody who asks does.
	vault.hangs.Store(true)
	asked := vault.asked.Load()
	eventually(t, "it hangs", func() bool { return vault.asked.Load() > asked })
	ready("", 503, "not ready", "postgres: "+reason, "vault: sealed")
	up(`"vault"} 0`)
}
