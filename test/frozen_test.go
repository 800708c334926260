package test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bulkhead/test/scale"
)

// TestFrozenGateway stops a gateway for a while, as a paused virtual machine is,
// with traffic running. What changed meanwhile holds there once it has been awake
// for as long as a change may take, the others serve as if nothing were, and no
// call is made or billed twice.
func TestFrozenGateway(t *testing.T) {
	s := scale.Of(t)
	f := newFleet(t, s, fleetOptions{companies: 4})
	busy, suspended := f.members[:3], f.members[3]
	tr := f.traffic(t, s, busy...)
	type sleep struct{ began, ended time.Time }
	var sleeps []sleep
	const frozen = 1
	for range scale.Pick(s, 1, 6) {
		tr.flows(t, 100)
		g := f.all[frozen]
		id, key := f.all[0].newKey(t, busy[0].company, nil)
		for _, g := range f.all { // in memory everywhere
			g.chat(t, key, "up/ok").want(t, "the key before", http.StatusOK)
		}
		stream := g.openStream(t, suspended.APIKey, "up/never-ending")
		began := time.Now()
		f.runs[frozen].signal(t, syscall.SIGSTOP)

		// What changes while it sleeps. It may have gone to sleep within a
		// transaction that others wait for, until the database ends that.
		eventually(t, 30*time.Second, "the key is revoked", func() bool {
			at := f.all[0].URL + "/v1/organization/projects/" + busy[0].ProjectID + "/api_keys/" + id
			status := ask(t, http.MethodDelete, at, busy[0].AdminKey, nil).status
			return status == http.StatusOK || status == http.StatusNotFound
		})
		f.suspend(t, 0, suspended, "suspend")
		s.Figure("changes_while_frozen", time.Since(began))
		f.obey(t, busy[1], f.others(frozen)...)
		for _, i := range f.others(frozen) {
			eventually(t, everywhere, "the revoked key is refused", func() bool { return f.all[i].chat(t, key, "up/ok").status == http.StatusUnauthorized })
		}
		tr.flows(t, 50)
		// Clients that reach the sleeper wait for it.
		waiting := f.ask(t, frozen, key, 8)
		for _, i := range f.others(frozen) {
			f.all[i].chat(t, key, "up/ok").want(t, "the revoked key at another gateway", http.StatusUnauthorized)
		}
		asleep := scale.Pick(s, 10*time.Second, 45*time.Second)
		eventually(t, time.Minute, "it has slept for long", func() bool { return time.Since(began) > asleep })

		awake := time.Now()
		f.runs[frozen].signal(t, syscall.SIGCONT)
		last := waiting()
		eventually(t, 20*time.Second, "the revoked key is refused", func() bool {
			status := g.chat(t, key, "up/ok").status
			if status == http.StatusOK {
				last = time.Now()
			}
			return status == http.StatusUnauthorized
		})
		if served := last.Sub(awake); served > everywhere {
			t.Errorf("the revoked key was served until %s after the gateway woke", served)
		} else {
			s.Figure("revoked_key_served_for", max(served, 0))
		}
		text, err := io.ReadAll(stream)
		if err == nil || strings.Contains(string(text), "[DONE]") || !strings.Contains(string(text), "call_ended") {
			t.Errorf("the stream of the suspended company ended as a whole one: %v", err)
		}
		if took := time.Since(awake); took > 2*everywhere {
			t.Errorf("the stream of the suspended company ended %s after the gateway woke", took)
		}
		for range 20 { // and stays so
			g.chat(t, key, "up/ok").want(t, "the revoked key", http.StatusUnauthorized)
			g.chat(t, suspended.APIKey, "up/ok").want(t, "the suspended company", http.StatusForbidden)
		}
		f.balancer.waitUp(t, frozen, true)
		f.suspend(t, 0, suspended, "resume")
		f.obey(t, busy[2], 0, 1, 2)
		sleeps = append(sleeps, sleep{began, awake})
	}
	calls := tr.stop()
	// Those that were at the sleeper may have waited for too long.
	s.Figure("calls_failed", none(t, calls, func(c *sent) bool {
		return c.gateway == frozen && slices.ContainsFunc(sleeps, func(z sleep) bool { return c.began.Before(z.ended) && c.ended.After(z.began) })
	}))
	f.account(t, s, calls, nil)
}

// suspend does that to m at gateway i: suspend or resume.
func (f *fleet) suspend(t *testing.T, i int, m *member, what string) {
	t.Helper()
	at := f.all[i].OpsURL + "/admin/companies/" + m.ID + "/" + what
	eventually(t, 30*time.Second, what+" "+m.Name, func() bool {
		return ask(t, http.MethodPost, at, f.all[i].Operator, map[string]any{}).status == http.StatusOK
	})
}

// ask makes n calls at gateway i, which does not answer yet. The function it
// returns waits for their answers and says when the last came that was not a
// refusal.
func (f *fleet) ask(t *testing.T, i int, key string, n int) (last func() time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	var asked sync.WaitGroup
	var at atomic.Int64
	for range n {
		asked.Go(func() {
			a, err := tryAsk(ctx, http.MethodPost, f.all[i].URL+"/v1/chat/completions", key, chatBody("up/ok", "Hello"))
			if err == nil && a.status == http.StatusOK {
				at.Store(max(at.Load(), time.Now().UnixNano()))
			}
		})
	}
	t.Cleanup(cancel)
	return func() time.Time { asked.Wait(); return time.Unix(0, at.Load()) }
}
