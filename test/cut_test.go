package test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"bulkhead/test/scale"
)

// TestDatabaseOutOfReach takes the way to the database from one gateway of three,
// with traffic running: once so that nothing comes through and nobody is told,
// once so that every connection breaks. It serves who is known as it knew them,
// and when the way is there again it has caught up as soon as a change may take.
func TestDatabaseOutOfReach(t *testing.T) {
	s := scale.Of(t)
	const alone = 1
	f := newFleet(t, s, fleetOptions{companies: 4, link: alone + 1})
	busy, suspended := f.members[:3], f.members[3]
	g := f.all[alone]
	tr := f.traffic(t, s, busy...)
	ready := func() int { return ask(t, http.MethodGet, g.OpsURL+"/readyz", "", nil).status }
	away := func(what string, breaks, mends func()) {
		t.Helper()
		c := busy[0].company
		id, key := f.all[0].newKey(t, c, nil)
		_, unseen := f.all[0].newKey(t, c, nil)
		tr.settles(t, busy...)
		for _, g := range f.all { // in memory everywhere
			g.chat(t, key, "up/ok").want(t, "the key before", http.StatusOK)
		}
		stream := g.openStream(t, suspended.APIKey, "up/never-ending")
		breaks()
		f.all[0].org(t, c, http.MethodDelete, "/projects/"+c.ProjectID+"/api_keys/"+id, nil, nil)
		f.suspend(t, 0, suspended, "suspend")
		f.obey(t, busy[1], f.others(alone)...)
		g.chat(t, key, "up/ok").want(t, what+": a key that it knows", http.StatusOK)
		began := time.Now()
		g.chat(t, unseen, "up/ok").want(t, what+": a key that it does not know", http.StatusServiceUnavailable)
		s.Figure(what+": unknown key refused after", time.Since(began))
		if s.Full() {
			eventually(t, 30*time.Second, "readiness says so", func() bool { return ready() == http.StatusServiceUnavailable })
			f.balancer.waitUp(t, alone, false)
		}
		tr.flows(t, 50)

		mends()
		began = time.Now()
		eventually(t, everywhere, what+": the revoked key is refused", func() bool { return g.chat(t, key, "up/ok").status == http.StatusUnauthorized })
		eventually(t, everywhere, what+": the new credential is used", func() bool { return f.secretSeen(t, alone, busy[1]) })
		text, err := io.ReadAll(stream)
		if err == nil || strings.Contains(string(text), "[DONE]") || !strings.Contains(string(text), "call_ended") {
			t.Errorf("%s: the stream of the suspended company ended as a whole one: %v", what, err)
		}
		if took := time.Since(began); took > everywhere {
			t.Errorf("%s: it had caught up after %s", what, took)
		} else {
			s.Figure(what+": caught up after", took)
		}
		g.chat(t, unseen, "up/ok").want(t, what+": a key that it can look up again", http.StatusOK)
		f.suspend(t, alone, suspended, "resume") // it can change what others see, too
		eventually(t, 30*time.Second, "it is ready", func() bool { return ready() == http.StatusOK })
	}
	for range scale.Pick(s, 1, 10) {
		away("nothing comes through", f.link.pause, f.link.resume)
		away("every connection breaks", f.link.sever, f.link.mend)
	}
	calls := tr.stop()
	none(t, calls, nil)
	f.account(t, s, calls, nil)
}
