package test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/test/scale"
	"bulkhead/test/servers"
	"bulkhead/test/upstream"
)

// TestConversationFleet: a dialogue goes on at whichever gateway, and stays right when
// Redis is flushed, stopped, or has what was true before.
func TestConversationFleet(t *testing.T) {
	s := scale.Of(t)
	redis := servers.Start(t, "redis")
	f := newFleet(t, s, fleetOptions{redis: redis.Var("REDIS_URL")})
	f.up.Handle("say", say)
	m := f.members[0]
	k := talker{g: f.all[0], up: f.up, c: m.company, key: m.APIKey}
	in := k.send(t, k.key, "new", says("up/say", "turn 0")).conversation(t)
	tails := "bh:{" + m.ID + "}:conv:tails"
	cached := func() string {
		reply, _ := redisDo(t, redis.Var("REDIS_URL"), "HGET", tails, in).(string)
		return reply
	}
	before, n := "user: turn 0\nassistant: you said: turn 0\n", 0
	// turns says something at each gateway, which must send all that was said before.
	turns := func(what string) {
		t.Helper()
		for _, g := range f.all {
			n++
			k.g = g
			// After trouble with Redis all gateways must have said what they hold.
			var a answer
			for end := time.Now().Add(2 * time.Minute); ; <-time.After(50 * time.Millisecond) {
				if a = k.send(t, k.key, in, says("up/say", fmt.Sprint("turn ", n))); a.status != http.StatusServiceUnavailable || time.Now().After(end) {
					break
				}
			}
			a.want(t, what, http.StatusOK)
			text := fmt.Sprintf("user: turn %d\n", n)
			want(t, what, k.received(t), before+text)
			before += text + fmt.Sprintf("assistant: you said: turn %d\n", n)
		}
	}
	turns("at first")
	eventually(t, 30*time.Second, "the tail is in Redis", func() bool { return strings.Contains(cached(), fmt.Sprint("turn ", n)) })
	old := cached()
	turns("with what is in Redis")
	redisDo(t, redis.Var("REDIS_URL"), "HSET", tails, in, old)
	turns("with what was in Redis before")
	for _, bad := range []string{"", "{", `{"version":1,"items":null}`, `[]`} {
		redisDo(t, redis.Var("REDIS_URL"), "HSET", tails, in, bad)
		turns("with " + bad + " in Redis")
	}
	redisDo(t, redis.Var("REDIS_URL"), "FLUSHALL")
	turns("after Redis was flushed")
	if err := redis.Stop(); err != nil {
		t.Fatal(err)
	}
	k.send(t, k.key, in, says("up/say", "while it is away")).want(t, "a turn without what counts limits", http.StatusServiceUnavailable)
	if err := redis.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
	turns("after Redis was away")
	if got := len(k.itemList(t, k.key, in)); got != 2*(n+1) {
		t.Errorf("%d items, want %d", got, 2*(n+1))
	}

	// Two gateways at once.
	var wg sync.WaitGroup
	for i, g := range f.all {
		wg.Go(func() {
			at := k
			at.g = g
			for j := range 5 {
				if a, err := at.trySend(t.Context(), k.key, in, says("up/say", fmt.Sprint("at once ", i, " ", j))); err != nil || a.status != http.StatusOK {
					t.Errorf("%d, %v: %s", a.status, err, a.body)
				}
			}
		})
	}
	wg.Wait()
	if got := len(k.itemList(t, k.key, in)); got != 2*(n+1)+2*5*len(f.all) {
		t.Errorf("%d items after turns at several gateways at once", got)
	}
	// Deleted is deleted, also where it was in memory; and erased is erased.
	k.g.call(t, http.MethodDelete, k.g.URL+"/v1/conversations/"+in, k.key, nil, nil)
	for _, g := range f.all {
		k.g = g
		k.send(t, k.key, in, says("up/say", "gone")).want(t, "a deleted conversation", http.StatusNotFound)
	}
	in = k.send(t, k.key, "new", says("up/say", "to be erased")).conversation(t)
	eventually(t, 30*time.Second, "the tail is in Redis", func() bool { return cached() != "" })
	f.all[0].call(t, http.MethodPost, f.all[0].OpsURL+"/admin/companies/"+m.ID+"/erase", f.all[0].Operator, nil, nil)
	if keys, _ := redisDo(t, redis.Var("REDIS_URL"), "KEYS", "bh:{"+m.ID+"}:conv:*").([]any); len(keys) != 0 {
		t.Errorf("of an erased company there are %v", keys)
	}
}

// confusable are names of end users that something might take for one another.
var confusable = []string{"ada", "Ada", "ADA", "ada ", " ada", "adа", "a%", "a_a", "ada:1", "ada\u0000", "ádа", "a\u0301da", "..", "ada/..", "*", "ada\n", "user_", "0", "null", "undefined"}

// soak has the end users of many companies talk, all with the same names, agents and
// words, and looks at what the provider is sent: nothing that was said to anybody else.
func soak(t *testing.T, s *scale.Run, up *upstream.Server, first *gateway, all ...*gateway) {
	t.Helper()
	companies, users, turns := scale.Pick(s, 5, 100), scale.Pick(s, 4, 20), scale.Pick(s, 6, 50)
	random := s.Rand()
	var mu sync.Mutex
	foreign, seen := 0, 0
	up.Handle("soak", func(c *upstream.Call) {
		secret := strings.TrimPrefix(c.R.Header.Get("Authorization"), "Bearer sk-soak-")
		ms := messagesIn(c.Body)
		tag, _, _ := strings.Cut(fmt.Sprint(ms[len(ms)-1].Content), "|") // whose turn it is
		mu.Lock()
		for _, m := range ms {
			seen++
			if text := fmt.Sprint(m.Content); m.Role != "system" && !strings.HasPrefix(strings.TrimPrefix(text, "you said: "), tag+"|") || !strings.HasPrefix(tag, secret+".") {
				foreign++
			}
		}
		mu.Unlock()
		say(c)
	})
	type one struct {
		k    talker
		user string
		tag  string
		in   string
		said int
	}
	var everybody []*one
	for i := range companies {
		c := first.newCompany(t, "Same name")
		first.setCredential(t, c, "up", fmt.Sprint("sk-soak-", i))
		first.newAgent(t, c.APIKey, map[string]any{"model": "up/soak", "slug": "desk", "instructions": "Be kind."})
		for u := range users {
			k := talker{g: first, up: up, c: c, key: c.APIKey}
			everybody = append(everybody, &one{k: k, user: confusable[u%len(confusable)], tag: fmt.Sprintf("%d.%d", i, u), in: "new"})
		}
	}
	for _, g := range all {
		c := everybody[len(everybody)-1].k.c
		eventually(t, 30*time.Second, "every gateway knows the last company", func() bool { return g.chat(t, c.APIKey, "up/ok").status == http.StatusOK })
	}
	order := random.Perm(len(everybody))
	var took []time.Duration
	turn := func(o *one, g *gateway) {
		o.k.g = g
		b := says("agent/desk", fmt.Sprintf("%s|%d", o.tag, o.said))
		b["user"], b["stream"] = o.user, o.said%3 == 0
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		a, err := o.k.trySend(ctx, o.k.key, o.in, b)
		if err != nil || a.status != http.StatusOK {
			t.Errorf("%s: %d, %v: %s", o.tag, a.status, err, a.body)
			return
		}
		mu.Lock()
		took = append(took, time.Since(begun))
		mu.Unlock()
		o.in = a.header.Get("X-Conversation-Id")
		o.said++
	}
	for range turns { // one of each, so that nobody has two at a time
		var wg sync.WaitGroup
		free := make(chan struct{}, 8)
		for n, i := range order {
			free <- struct{}{}
			wg.Go(func() {
				turn(everybody[i], all[n%len(all)])
				<-free
			})
		}
		wg.Wait()
		random.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
	}
	if foreign > 0 {
		t.Errorf("%d of %d messages were said to somebody else", foreign, seen)
	}
	// The ids of others open nothing.
	for range 200 {
		a, b := everybody[random.IntN(len(everybody))], everybody[random.IntN(len(everybody))]
		if a == b {
			continue
		}
		body := says("agent/desk", a.tag+"|0")
		body["user"] = a.user
		a.k.send(t, a.k.key, b.in, body).want(t, "the conversation of somebody else", http.StatusNotFound)
	}
	for _, o := range everybody {
		if n := len(o.k.itemList(t, o.k.key, o.in)); n != 2*turns {
			t.Errorf("%s: %d items, want %d", o.tag, n, 2*turns)
		}
	}
	slices.Sort(took)
	s.Figure("messages_sent", seen)
	s.Figure("foreign", foreign)
	s.Figure("turn_p50", took[len(took)/2])
	s.Figure("turn_p99", took[len(took)*99/100])
}

// TestConversationSoak: see soak; with everything in one process.
func TestConversationSoak(t *testing.T) {
	s := scale.Of(t)
	k := startTalking(t, "log: {level: warn}\n")
	soak(t, s, k.up, k.g, k.g)
}

// TestConversationSoakFleet: see soak; at three gateways with one PostgreSQL and one
// Redis.
func TestConversationSoakFleet(t *testing.T) {
	s := scale.Of(t)
	f := newFleet(t, s, fleetOptions{redis: servers.Start(t, "redis").Var("REDIS_URL")})
	soak(t, s, f.up, f.all[0], f.all...)
}
