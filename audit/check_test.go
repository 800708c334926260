package audit

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// stored is a chain as a database has it.
type stored struct {
	links []storedLink
	rows  map[string]Event
	head  *Head
	seal  Hash
}

type storedLink struct {
	seq  int64
	id   string
	hash Hash
}

func newStored(n int) *stored {
	c := NewChain(testKey)
	s := &stored{rows: map[string]Event{}, head: &Head{}}
	for i := range n {
		e := testEvent()
		e.ID, e.At, e.Object = fmt.Sprint("row ", i+1), e.At.Add(time.Duration(i)*time.Second), fmt.Sprint("object ", i+1)
		*s.head = c.Add("org-a", *s.head, &e)
		s.links = append(s.links, storedLink{s.head.Count, e.ID, s.head.Hash})
		s.rows[e.ID] = e
	}
	s.seal = c.Seal("org-a", *s.head)
	return s
}

func (s *stored) check(anchor *Head) Report {
	k := NewChain(testKey).Check("org-a", s.head, s.seal[:], anchor)
	slices.SortFunc(s.links, func(a, b storedLink) int { return int(a.seq - b.seq) })
	places := map[string]int64{}
	for _, l := range s.links {
		if e, there := s.rows[l.id]; there {
			k.Link(l.seq, l.id, l.hash, &e)
		} else {
			k.Link(l.seq, l.id, l.hash, nil)
		}
		places[l.id] = l.seq
	}
	var rows []Event
	for _, e := range s.rows {
		rows = append(rows, e)
	}
	slices.SortFunc(rows, func(a, b Event) int { return a.At.Compare(b.At) })
	for _, e := range rows {
		k.Row(places[e.ID], e.ID, e.At)
	}
	return k.End()
}

func (s *stored) drop(seqs ...int64) {
	s.links = slices.DeleteFunc(s.links, func(l storedLink) bool { return slices.Contains(seqs, l.seq) })
}

// TestCheck does to a chain of ten rows what somebody might who can write to the
// database and has not the key.
func TestCheck(t *testing.T) {
	f := func(what string, change func(s *stored), want string) {
		t.Helper()
		s := newStored(10)
		change(s)
		var got []string
		r := s.check(nil)
		for _, f := range r.Findings {
			text := fmt.Sprint(f.Kind, " ", f.Sequence)
			if f.To > 0 {
				text += fmt.Sprint("-", f.To)
			}
			got = append(got, strings.TrimSpace(text+" "+f.ID))
			if f.Text == "" {
				t.Errorf("%s: %v says nothing", what, f)
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: found %q, want %q", what, got, want)
		}
	}
	f("nothing", func(*stored) {}, "")
	f("change a row", func(s *stored) { e := s.rows["row 4"]; e.Object = "x"; s.rows["row 4"] = e }, "changed 4 row 4")
	f("change the last row", func(s *stored) { e := s.rows["row 10"]; e.Count = 0; s.rows["row 10"] = e }, "changed 10 row 10")
	f("take a row", func(s *stored) { delete(s.rows, "row 4") }, "missing 4 row 4")
	f("take a row and its link", func(s *stored) { delete(s.rows, "row 4"); s.drop(4) }, "missing 4")
	f("take three", func(s *stored) {
		for _, n := range []string{"row 4", "row 5", "row 6"} {
			delete(s.rows, n)
		}
		s.drop(4, 5, 6)
	}, "missing 4-6")
	f("take the first", func(s *stored) { delete(s.rows, "row 1"); s.drop(1) }, "missing 1")
	f("take a link", func(s *stored) { s.drop(4) }, "missing 4, inserted 3 row 4")
	f("add a row", func(s *stored) { e := s.rows["row 4"]; e.ID = "new"; e.At = e.At.Add(1); s.rows["new"] = e }, "inserted 4 new")
	f("add a row with a link", func(s *stored) {
		e := s.rows["row 10"]
		e.ID = "new"
		s.rows["new"] = e
		s.links = append(s.links, storedLink{11, "new", Hash{1}})
	}, "changed 11 new, inserted 11")
	f("add a row, a link and to the head", func(s *stored) {
		e := s.rows["row 10"]
		e.ID = "new"
		s.rows["new"] = e
		s.links = append(s.links, storedLink{11, "new", Hash{1}})
		s.head = &Head{11, Hash{1}}
	}, "changed 11 new, head 11")
	f("a second row of the same id", func(s *stored) { s.links = append(s.links, storedLink{4, "row 4", s.links[3].hash}) }, "inserted 4 row 4, inserted 10")
	f("swap two rows", func(s *stored) { s.links[3].id, s.links[4].id = s.links[4].id, s.links[3].id }, "changed 4 row 5, changed 5 row 4")
	f("swap two links", func(s *stored) { s.links[3].seq, s.links[4].seq = 5, 4 }, "changed 4 row 5, changed 5 row 4, changed 6 row 6")
	f("cut the end", func(s *stored) { delete(s.rows, "row 9"); delete(s.rows, "row 10"); s.drop(9, 10) }, "cut 9-10")
	f("cut it with the head", func(s *stored) {
		delete(s.rows, "row 10")
		s.drop(10)
		s.head = &Head{9, s.links[8].hash}
	}, "head 9")
	f("change a row and its hash, as if with the key", func(s *stored) {
		e := s.rows["row 10"]
		e.Object = "x"
		s.rows["row 10"] = e
		s.links[9].hash = NewChain(testKey).Add("org-a", Head{9, s.links[8].hash}, &e).Hash
	}, "changed 10")
	f("forge the chain with another key", func(s *stored) {
		c := NewChain([]byte(strings.Repeat("x", 32)))
		head := Head{8, s.links[7].hash}
		for i := 8; i < 10; i++ {
			e := s.rows[s.links[i].id]
			e.Object = "x"
			s.rows[e.ID] = e
			head = c.Add("org-a", head, &e)
			s.links[i].hash = head.Hash
		}
		s.head, s.seal = &head, c.Seal("org-a", head)
	}, "changed 9 row 9, changed 10 row 10, head 10")
	f("take the head", func(s *stored) { s.head = nil }, "head 10")
	f("take it all", func(s *stored) { s.head, s.links, s.rows = nil, nil, nil }, "head 0")
	f("take it all but the head", func(s *stored) { s.links, s.rows = nil, nil }, "cut 1-10")
	f("give it another's head", func(s *stored) { s.seal = NewChain(testKey).Seal("org-b", *s.head) }, "head 10")
}

func TestCheckAnchor(t *testing.T) {
	short, long := newStored(6), newStored(10)
	f := func(s *stored, anchor Head, want string) {
		t.Helper()
		got := ""
		for _, f := range s.check(&anchor).Findings {
			got += fmt.Sprint(f.Kind, " ", f.Sequence, "-", f.To)
		}
		if got != want {
			t.Errorf("%v: found %q, want %q", anchor, got, want)
		}
	}
	f(long, *short.head, "")
	f(long, *long.head, "")
	f(long, Head{}, "")
	// Cut with a head that was once sealed, nothing else tells.
	f(short, *long.head, "anchor 7-10")
	f(long, Head{6, Hash{1}}, "anchor 6-0")
}

func TestManyFindings(t *testing.T) {
	s := newStored(300)
	for id, e := range s.rows {
		e.Object = "x"
		s.rows[id] = e
	}
	if r := s.check(nil); len(r.Findings) != maxFindings || r.More != 200 {
		t.Errorf("%d findings and %d more", len(r.Findings), r.More)
	}
}

func TestRoll(t *testing.T) {
	r := NewRoll()
	for _, act := range []string{"audit.begin a", "audit.begin b", "audit.begin b", "company.erase c", "audit.begin c", "company.suspend d", "audit.begin e", "company.erase f"} {
		typ, company, _ := strings.Cut(act, " ")
		r.Act(&Event{Type: Type(typ), Object: company})
	}
	f := func(company string, erased bool, want ...Kind) {
		t.Helper()
		report := Report{Chain: company}
		r.Company(&report, erased)
		var got []Kind
		for _, f := range report.Findings {
			got = append(got, f.Kind)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: found %v, want %v", company, got, want)
		}
	}
	f("a", false)
	f("b", false, Restarted)
	f("c", true)
	f("a", true, Unerased)
	f("d", false, Unbegun)
	f("f", true) // from before there were chains
	if got := r.Gone(); !slices.Equal(got, []string{"e"}) {
		t.Errorf("gone %q", got)
	}
}
