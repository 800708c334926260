package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/keystore"
	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/tenant"
)

func testDataKey(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	_, err := w.db.DataKey(w.ctx(), s)
	wantErr(t, err, keystore.ErrNotFound)
	for _, wrapped := range []string{"first\x00\xff", "second"} { // the second comes too late
		got, err := w.db.PutDataKey(w.ctx(), s, []byte(wrapped))
		must(t, err)
		same(t, got, []byte("first\x00\xff"))
	}
	got, err := w.db.DataKey(w.ctx(), s)
	must(t, err)
	same(t, got, []byte("first\x00\xff"))
}

func testCredentials(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	_, err := w.db.Credential(w.ctx(), s, "openai")
	wantErr(t, err, keystore.ErrNotFound)
	c := sealed("cred_1", "openai", 1)
	must(t, w.db.PutCredential(w.ctx(), s, c))
	got, err := w.db.Credential(w.ctx(), s, "openai")
	must(t, err)
	same(t, got, c)
	// Only the version after the one that is stored takes its place.
	wantErr(t, w.db.PutCredential(w.ctx(), s, c), keystore.ErrConflict)
	wantErr(t, w.db.PutCredential(w.ctx(), s, sealed("cred_1", "openai", 3)), keystore.ErrConflict)
	wantErr(t, w.db.PutCredential(w.ctx(), s, sealed("cred_2", "openai", 2)), keystore.ErrConflict)
	wantErr(t, w.db.PutCredential(w.ctx(), s, sealed("cred_2", "openai", 1)), keystore.ErrConflict)
	wantErr(t, w.db.PutCredential(w.ctx(), s, sealed("cred_9", "nobody", 2)), keystore.ErrConflict)
	c = sealed("cred_1", "openai", 2)
	must(t, w.db.PutCredential(w.ctx(), s, c))
	got, err = w.db.Credential(w.ctx(), s, "openai")
	must(t, err)
	same(t, got, c)

	other := sealed("cred_0", "azure", 1)
	other.CreatedAt = epoch.Add(time.Second)
	must(t, w.db.PutCredential(w.ctx(), s, other))
	list, err := w.db.Credentials(w.ctx(), s)
	must(t, err)
	c.Blob, other.Blob = nil, nil
	same(t, list, []keystore.Sealed{c, other})
	wantErr(t, w.db.DeleteCredential(w.ctx(), s, "cred_9"), keystore.ErrNotFound)
	must(t, w.db.DeleteCredential(w.ctx(), s, "cred_1"))
	wantErr(t, w.db.DeleteCredential(w.ctx(), s, "cred_1"), keystore.ErrNotFound)
	same(t, w.again(s).Company().Providers, []string{"azure"})
}

// testRacingCredentials lets writers put the same version at once: one wins.
func testRacingCredentials(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	var won, lost int
	var mu sync.Mutex
	for version := int64(1); version <= 3; version++ {
		each(8, func(int) {
			err := w.db.PutCredential(w.ctx(), s, sealed("cred_1", "openai", version))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case errors.Is(err, keystore.ErrConflict):
				lost++
			default:
				t.Error(err)
			}
		})
	}
	same(t, []int{won, lost}, []int{3, 21})
}

// each runs f(0) to f(n-1) at the same time.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func book(s tenant.Scope, entries ...ledger.Entry) (batch []ledger.Booked) {
	for _, e := range entries {
		batch = append(batch, ledger.Booked{Scope: s, Entry: e})
	}
	return batch
}

func testEntries(t *testing.T, open Open) {
	w := newWorld(t, open)
	acme, _ := w.company("acme")
	beta, _ := w.company("beta")
	must(t, w.db.AppendEntries(w.ctx(), nil))
	var batch []ledger.Booked
	for i := range 5 { // companies in turn
		e := entry(fmt.Sprint("att_", i), epoch.Add(time.Duration(i)*time.Second))
		batch = append(batch, book(acme, e)...)
		e.CostNano *= 10
		batch = append(batch, book(beta, e)...)
	}
	f := func(s tenant.Scope, p openai.Page, from, to int, wantMore bool, times int64) {
		t.Helper()
		got, more, err := w.db.Entries(w.ctx(), s, p)
		must(t, err)
		var want []ledger.Entry
		for i := from; i >= to; i-- {
			e := batch[2*i].Entry
			e.CostNano *= times
			want = append(want, e)
		}
		same(t, []any{got, more}, []any{want, wantMore})
	}
	for range 3 { // sending a batch again changes nothing
		must(t, w.db.AppendEntries(w.ctx(), batch))
		f(acme, all, 4, 0, false, 1)
		f(beta, all, 4, 0, false, 10)
	}
	f(acme, openai.Page{Limit: 2}, 4, 3, true, 1)
	f(acme, openai.Page{Limit: 2, Desc: true, After: "att_3"}, 2, 1, true, 1)
	f(acme, openai.Page{Limit: 9, After: "att_3"}, 2, 0, false, 1)
	f(acme, openai.Page{Limit: 2, Before: "att_1"}, 3, 2, true, 1)

	// All of a batch or nothing.
	bad := entry("att_8", epoch)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("an entry without a company was taken")
			}
		}()
		w.db.AppendEntries(w.ctx(), append(book(acme, entry("att_7", epoch)), ledger.Booked{Entry: bad}))
	}()
	f(acme, all, 4, 0, false, 1)
	// Money and counts are whole numbers of 64 bits.
	e := entry("att_big", epoch.Add(time.Hour))
	e.CostNano, e.Usage.Total = 1<<62+1, 1<<53+1
	must(t, w.db.AppendEntries(w.ctx(), book(acme, e)))
	got, _, err := w.db.Entries(w.ctx(), acme, openai.Page{Limit: 1})
	must(t, err)
	same(t, got[0], e)
}

// usual returns entries with nothing in the fields that most leave empty, of two
// keys in turn, that have all the rest in common.
func usual(prefix string, n int, at time.Time) (all []ledger.Entry) {
	for i := range n {
		m, k := int64(i), i%2
		all = append(all, ledger.Entry{
			ID: fmt.Sprintf("%s%02d", prefix, i), RequestID: fmt.Sprint("req ", i), ProjectID: fmt.Sprint("proj ", k), KeyID: fmt.Sprint("key ", k),
			Kind: fmt.Sprint("kind ", k), Provider: fmt.Sprint("provider ", k), Model: fmt.Sprint("model ", k), Requested: fmt.Sprint("requested ", k),
			AgentID: fmt.Sprint("agent ", k), UserID: fmt.Sprint("user ", k), Tier: fmt.Sprint("tier ", k), Lent: k == 1,
			Outcome: ledger.Outcome(fmt.Sprint("outcome ", k)), Rank: ledger.Final, Status: 200 + k, First: true, Priced: k == 0,
			Usage:    openai.Usage{Input: 10 + m, CachedInput: 5 + m, Output: 20 + m, Total: 30 + 2*m},
			CostNano: 1000 + m, LowNano: 1000 + m, HighNano: 1000 + m,
			StartedAt: at.Add(time.Duration(i) * time.Second), EndedAt: at.Add(time.Duration(i) * time.Minute),
		})
	}
	return all
}

// testUsualEntries appends entries that several to a statement can have, in
// batches of all sizes, with others between them, and in any order.
func testUsualEntries(t *testing.T, open Open) {
	w := newWorld(t, open)
	acme, _ := w.company("acme")
	beta, _ := w.company("beta")
	var want []ledger.Entry // the newest first
	for size := range 24 {
		batch := usual(fmt.Sprintf("att_%02d_", size), size, epoch.Add(time.Duration(size)*time.Hour))
		if size > 6 {
			batch[5] = entry(batch[5].ID, epoch.Add(time.Duration(size)*time.Hour))
		}
		slices.SortFunc(batch, func(a, b ledger.Entry) int { return strings.Compare(b.ID, a.ID) })
		want = append(slices.Clone(batch), want...)
		sent := book(acme, batch...)
		for i, e := range batch { // of another company, with the same ids
			e.CostNano, e.LowNano, e.HighNano = 5, 5, 5
			sent = slices.Insert(sent, 2*i, ledger.Booked{Scope: beta, Entry: e})
		}
		for range 2 { // sending a batch again changes nothing
			must(t, w.db.AppendEntries(w.ctx(), sent))
		}
	}
	got, _, err := w.db.Entries(w.ctx(), acme, openai.Page{Limit: len(want) + 1})
	must(t, err)
	same(t, got, want)
	theirs, _, err := w.db.Entries(w.ctx(), beta, openai.Page{Limit: len(want) + 1})
	must(t, err)
	for i := range want {
		want[i].CostNano, want[i].LowNano, want[i].HighNano = 5, 5, 5
	}
	same(t, theirs, want)

	// One that comes twice in a batch, estimated and final.
	batch := usual("att_twice_", 20, epoch)
	low := batch[2]
	low.Rank, low.CostNano, low.LowNano, low.HighNano = ledger.Estimate, 1, 1, 1
	must(t, w.db.AppendEntries(w.ctx(), book(acme, append(batch, low)...)))
	must(t, w.db.AppendEntries(w.ctx(), book(acme, append([]ledger.Entry{low}, batch...)...)))
	must(t, w.db.AppendEntries(w.ctx(), book(acme, append(batch, batch[4])...)))
	slices.Reverse(batch)
	got, _, err = w.db.Entries(w.ctx(), acme, openai.Page{Limit: len(batch)})
	must(t, err)
	same(t, got, batch)
}

func testRanks(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	f := func(rank ledger.Rank, cost, want int64) {
		t.Helper()
		e := entry("att_1", epoch)
		e.Rank, e.CostNano, e.Usage.Output, e.Outcome = rank, cost, cost, ledger.Outcome(fmt.Sprint("outcome ", cost))
		must(t, w.db.AppendEntries(w.ctx(), book(s, e)))
		got, _, err := w.db.Entries(w.ctx(), s, all)
		must(t, err)
		if len(got) != 1 {
			t.Fatalf("%d entries", len(got))
		}
		same(t, []any{got[0].CostNano, got[0].Usage.Output, got[0].Outcome}, []any{want, want, fmt.Sprint("outcome ", want)})
	}
	f(ledger.Estimate, 10, 10)
	f(ledger.Estimate, 20, 10) // the same rank: the first one stays
	f(ledger.Final, 30, 30)
	f(ledger.Final, 40, 30)
	f(ledger.Estimate, 50, 30)

	// Both ranks in one batch, in either order.
	low, high := entry("att_2", epoch), entry("att_2", epoch)
	low.Rank, low.CostNano, high.CostNano = ledger.Estimate, 1, 2
	must(t, w.db.AppendEntries(w.ctx(), book(s, low, high)))
	low.ID, high.ID = "att_3", "att_3"
	must(t, w.db.AppendEntries(w.ctx(), book(s, high, low)))
	got, _, err := w.db.Entries(w.ctx(), s, all)
	must(t, err)
	for _, e := range got[:2] {
		same(t, e.CostNano, 2)
	}
}

// testLateEntries books for a project and a key that are not there any more.
func testLateEntries(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	e := entry("att_1", epoch)
	e.ProjectID, e.KeyID = "proj_never", "key_never"
	must(t, w.db.AppendEntries(w.ctx(), book(s, e)))
	got, _, err := w.db.Entries(w.ctx(), s, all)
	must(t, err)
	same(t, got, []ledger.Entry{e})
}

// testParallel writes and reads from many goroutines. Nothing is lost and no
// generation is given out twice.
func testParallel(t *testing.T, open Open) {
	w := newWorld(t, open)
	db := w.db
	var scopes []tenant.Scope
	for i := range 3 {
		s, _ := w.company(fmt.Sprint("company ", i))
		scopes = append(scopes, s)
	}
	_, before, err := db.Changes(w.ctx(), 0)
	must(t, err)
	const workers, rounds = 6, 10
	each(workers, func(i int) {
		s := scopes[i%len(scopes)]
		for n := range rounds {
			id := fmt.Sprint(i, "_", n)
			if err := db.CreateProject(w.ctx(), s, tenant.Project{ID: id, Name: id, CreatedAt: epoch}); err != nil {
				t.Error(err)
			}
			if err := db.AppendEntries(w.ctx(), book(s, entry(id, epoch), entry("shared", epoch))); err != nil {
				t.Error(err)
			}
			if _, _, err := db.Projects(w.ctx(), s, all, true); err != nil {
				t.Error(err)
			}
		}
	})
	for _, s := range scopes {
		projects, _, err := db.Projects(w.ctx(), s, all, true)
		must(t, err)
		entries, _, err := db.Entries(w.ctx(), s, all)
		must(t, err)
		same(t, []int{len(projects), len(entries)}, []int{1 + rounds*workers/3, 1 + rounds*workers/3})
	}
	_, after, err := db.Changes(w.ctx(), 0)
	must(t, err)
	same(t, after-before, workers*rounds)
}

func testCancelled(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	ctx, cancel := context.WithCancel(w.ctx())
	cancel()
	before := w.db.Executed()
	wantErr(t, w.db.CreateProject(ctx, s, tenant.Project{ID: "p", Name: "p"}), context.Canceled)
	wantErr(t, w.db.AppendEntries(ctx, book(s, entry("att_1", epoch))), context.Canceled)
	_, _, err := w.db.Projects(ctx, s, all, true)
	wantErr(t, err, context.Canceled)
	same(t, w.db.Executed(), before)
	// In the middle of things: each either happened or did not, and the store works on.
	for i := range 30 {
		ctx, cancel := context.WithTimeout(w.ctx(), time.Duration(i)*50*time.Microsecond)
		id := fmt.Sprint("p", i)
		err := w.db.CreateProject(ctx, s, tenant.Project{ID: id, Name: id})
		cancel()
		_, found := w.db.Project(w.ctx(), s, id)
		if (err == nil) != (found == nil) {
			t.Errorf("CreateProject says %v, Project says %v", err, found)
		}
	}
	must(t, w.db.CreateProject(w.ctx(), s, tenant.Project{ID: "p", Name: "p"}))
}

// testWarm checks that a key that was seen before costs no statement.
func testWarm(t *testing.T, open Open) {
	w := newWorld(t, open)
	_, values := w.company("acme")
	for _, value := range values {
		_, err := w.Authenticate(w.ctx(), []byte(value))
		must(t, err)
	}
	before := w.db.Executed()
	if before == 0 {
		t.Error("nothing was counted")
	}
	for range 10 {
		for _, value := range values {
			_, err := w.Authenticate(w.ctx(), []byte(value))
			must(t, err)
		}
	}
	same(t, w.db.Executed(), before)
}

func testClosed(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	must(t, w.db.Ping(w.ctx()))
	must(t, w.db.Close())
	must(t, w.db.Close())
	if w.db.Ping(w.ctx()) == nil {
		t.Error("a closed store is there")
	}
	if _, err := w.db.Project(w.ctx(), s, firstProject); err == nil {
		t.Error("a closed store answers")
	}
	if err := w.db.DeleteRoute(w.ctx(), s, "x"); err == nil {
		t.Error("a closed store writes")
	}
}
