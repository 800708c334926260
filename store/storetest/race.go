package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// testRacingErase erases companies that are still being written to. Nothing
// may be there afterwards.
func testRacingErase(t *testing.T, open Open) {
	w := newWorld(t, open)
	other, _ := w.company("stays")
	for round := range 8 {
		s, _ := w.company(fmt.Sprint("gone ", round))
		id := s.ID().String()
		a := w.act("company.erase", id)
		ended := make(chan struct{})
		each(5, func(i int) {
			if i == 0 {
				defer close(ended)
				_, err := w.db.SetCompanyStatus(w.ctx(), a, id, tenant.Erasing)
				must(t, err)
				_, err = w.db.EraseCompany(w.ctx(), a, s)
				must(t, err)
				return
			}
			for n, last := 0, false; !last; n++ {
				select {
				case <-ended:
					last = true
				default:
				}
				name := fmt.Sprint(i, "_", n)
				var err error
				switch i {
				case 1, 2: // the second in the other order
					batch := book(s, entry("att_"+name, epoch), entry("att_both", epoch))
					batch = append(batch, book(other, entry("att_same", epoch))...)
					if i == 2 {
						slices.Reverse(batch)
					}
					err = w.db.AppendEntries(w.ctx(), batch)
				case 3:
					_, err = w.db.PutDataKey(w.ctx(), s, []byte("wrapped"))
				case 4:
					err = w.db.CreateProject(w.ctx(), s, tenant.Project{ID: name, Name: name})
				}
				if err != nil && !errors.Is(err, tenant.ErrNotFound) && i < 3 {
					t.Error(err)
				}
			}
		})
		entries, _, err := w.db.Entries(w.ctx(), s, all)
		must(t, err)
		_, err = w.db.DataKey(w.ctx(), s)
		projects, _, errProjects := w.db.Projects(w.ctx(), s, all, true)
		must(t, errProjects)
		if len(entries) > 0 || err == nil || len(projects) > 0 {
			t.Errorf("left behind: %d entries, a data key: %v, %d projects", len(entries), err == nil, len(projects))
		}
	}
	entries, _, err := w.db.Entries(w.ctx(), other, all)
	must(t, err)
	same(t, len(entries), 1)
}

// testRacingAccounts makes keys for accounts and in projects that end at the
// same time. No key may outlive them.
func testRacingAccounts(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	for round := range 20 {
		a := tenant.ServiceAccount{ID: fmt.Sprint("a", round), ProjectID: firstProject, Name: "a", CreatedAt: epoch}
		must(t, w.db.CreateServiceAccount(w.ctx(), s, a, nil))
		ids := []string{fmt.Sprint("k1_", round), fmt.Sprint("k2_", round)}
		each(3, func(i int) {
			if i == 2 {
				must(t, w.db.DeleteServiceAccount(w.ctx(), s, firstProject, a.ID))
				return
			}
			err := w.db.CreateKey(w.ctx(), s, key(ids[i], firstProject, a.ID, epoch))
			if err != nil && !errors.Is(err, tenant.ErrNotFound) {
				t.Error(err)
			}
		})
		for _, id := range ids {
			_, err := w.db.LoadKey(w.ctx(), s.ID(), id)
			wantErr(t, err, tenant.ErrNotFound)
		}
	}
}

// testRacingNames makes the same thing in many places at once: one does.
func testRacingNames(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	f := func(what string, do func() error) {
		t.Helper()
		made := make(chan bool, 6)
		each(cap(made), func(int) {
			err := do()
			if err != nil && !fault.Is(err, fault.Conflict) {
				t.Errorf("%s: %v", what, err)
			}
			made <- err == nil
		})
		close(made)
		n := 0
		for ok := range made {
			if ok {
				n++
			}
		}
		same(t, []any{what, n}, []any{what, 1})
	}
	f("project", func() error { return w.db.CreateProject(w.ctx(), s, tenant.Project{ID: "p", Name: "p"}) })
	f("key", func() error { return w.db.CreateKey(w.ctx(), s, key("k", "", "", epoch)) })
	_, k := w.Minter().MintOperator()
	f("operator key", func() error { return w.db.AddOperatorKey(w.ctx(), k) })
	// Everybody gets what the first has stored.
	got := make(chan string, 6)
	each(cap(got), func(i int) {
		value, err := w.db.Installation(w.ctx(), "fact", fmt.Sprint(i))
		if err != nil {
			t.Error(err)
		}
		got <- value
	})
	close(got)
	first := <-got
	for value := range got {
		same(t, value, first)
	}
}

// testOddEntries books attempts at models with names that a database may not
// take. What was spent is booked all the same.
func testOddEntries(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	e := entry("att_1", epoch)
	e.Model, e.Requested, e.Provider = "a\x00b", "\xff", "ü"
	must(t, w.db.AppendEntries(w.ctx(), []ledger.Booked{{Scope: s, Entry: e}}))
	got, _, err := w.db.Entries(w.ctx(), s, all)
	must(t, err)
	e.Model, e.Requested = "a\uFFFDb", "\uFFFD"
	same(t, got, []ledger.Entry{e})
	// The order is that of the ids, by their bytes.
	var batch []ledger.Booked
	for _, id := range []string{"att_B", "att_a", "att_ä", "att-c", "ATT_z"} {
		batch = append(batch, book(s, entry(id, epoch))...)
	}
	must(t, w.db.AppendEntries(w.ctx(), batch))
	got, _, err = w.db.Entries(w.ctx(), s, openai.Page{After: "att_ä"})
	must(t, err)
	var ids []string
	for _, e := range got {
		ids = append(ids, e.ID)
	}
	same(t, ids, []string{"att_a", "att_B", "att_1", "att-c", "ATT_z"})
}

// testRacingFeed changes companies at once while the feed is read. No change
// may be passed over.
func testRacingFeed(t *testing.T, open Open) {
	w := newWorld(t, open)
	var scopes []tenant.Scope
	for i := range 6 {
		s, _ := w.company(fmt.Sprint("company ", i))
		scopes = append(scopes, s)
	}
	seen := map[string]int64{} // the generation that was loaded after the feed told
	last := int64(0)
	read := func() {
		ids, next, err := w.db.Changes(w.ctx(), last)
		if err != nil {
			t.Error(err)
			return
		}
		last = next
		for _, id := range ids {
			for _, s := range scopes {
				if s.ID().String() != id {
					continue
				}
				var c tenant.Company
				if err := w.db.LoadCompany(w.ctx(), s.ID(), &c); err != nil {
					t.Error(err)
				}
				seen[id] = c.Generation
			}
		}
	}
	for round := range 10 {
		ended := make(chan struct{}, len(scopes))
		each(len(scopes)+1, func(i int) {
			if i < len(scopes) {
				defer func() { ended <- struct{}{} }()
				id := fmt.Sprint("p", round)
				if err := w.db.CreateProject(w.ctx(), scopes[i], tenant.Project{ID: id, Name: id}); err != nil {
					t.Error(err)
				}
				return
			}
			for len(ended) < cap(ended) {
				read()
			}
		})
		read()
		for _, s := range scopes {
			same(t, seen[s.ID().String()], w.again(s).Company().Generation)
		}
	}
}
