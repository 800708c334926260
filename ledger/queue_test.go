package ledger

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// The queue against sets: whatever is added, shipped, refused and added in
// between, each entry comes once, and those of a company in order, apart from
// those that are in memory because they could not be written.
func TestQueueModel(t *testing.T) {
	var scopes []tenant.Scope
	for i := range 3 {
		scopes = append(scopes, tenanttest.Scope(t, fmt.Sprint("company ", i)))
	}
	rapid.Check(t, func(t *rapid.T) {
		o := Options{Batch: rapid.IntRange(1, 10).Draw(t, "batch"), Memory: rapid.IntRange(1, 12).Draw(t, "memory")}
		if rapid.Bool().Draw(t, "journal") {
			o.Journal = "somewhere"
			o.ScopeOf = scopeOf()
		}
		if err := o.complete(); err != nil {
			t.Fatal(err)
		}
		q := queue{lines: map[string]*line{}}
		now := time.Unix(1000, 0)
		model := map[string]map[uint32]bool{} // by company, numbers of entries that wait
		added := uint32(0)
		add := func(s tenant.Scope) {
			added++
			w := waiting{entry: Entry{Status: int(added)}, since: now}
			if o.Journal != "" && rapid.IntRange(0, 3).Draw(t, "written") > 0 {
				w.ref = ref{segment: 1, at: added, n: 100}
			}
			q.reserve(s)
			company := s.ID().String()
			q.running--
			q.free(q.lines[company], 1)
			q.add(q.lines[company], w, &o)
			if model[company] == nil {
				model[company] = map[uint32]bool{}
			}
			model[company][added] = true
		}
		number := func(l *line, p part, i int) uint32 {
			if p.disk {
				return l.disk[i].at
			}
			return uint32(l.inMemory()[i].entry.Status)
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				s := scopes[rapid.IntRange(0, 2).Draw(t, "company")]
				for range rapid.IntRange(1, 20).Draw(t, "entries") {
					add(s)
				}
			},
			"ship": func(t *rapid.T) {
				now = now.Add(time.Hour)
				parts, _ := q.take(&o, now, true)
				if n := rapid.IntRange(0, 5).Draw(t, "meanwhile"); n > 0 && len(parts) > 0 {
					for range n { // what was taken stays where it is
						add(scopes[rapid.IntRange(0, 2).Draw(t, "company")])
					}
				}
				all := 0
				for _, p := range parts {
					company := p.l.company
					all += p.n
					var numbers []uint32
					for i := range p.n {
						numbers = append(numbers, number(p.l, p, i))
						if n := numbers[i]; !model[company][n] || i > 0 && n <= numbers[i-1] {
							t.Fatalf("%s: %d of %v is there again, or late", company, n, numbers)
						}
					}
					if rapid.IntRange(0, 3).Draw(t, "fate") == 0 {
						q.doubt(p.l, &o, now)
						continue
					}
					for _, n := range numbers {
						delete(model[company], n)
					}
					q.done(p)
				}
				if all > o.Batch {
					t.Fatalf("%d entries in a batch of %d", all, o.Batch)
				}
			},
			"write": func(t *rapid.T) { // a close that could not be written now is
				for _, u := range q.someUnwritten() {
					q.written(u.l, u.i, ref{segment: 1, at: uint32(u.e.Status), n: 100})
				}
			},
			"": func(t *rapid.T) {
				waiting, inRing, places, kept, unwritten := 0, 0, 0, 0, 0
				for company, numbers := range model {
					l := q.lines[company]
					if len(numbers) == 0 {
						if l != nil {
							t.Fatalf("%s has a line and no entries", company)
						}
						continue
					}
					if l == nil || l.count() != len(numbers) || l.list == nil || (*l.list)[l.at] != l {
						t.Fatalf("%s: %+v, want %d entries", company, l, len(numbers))
					}
					waiting += len(numbers)
					kept += len(l.inMemory())
					bytes := int64(0)
					alone := 0
					for _, w := range l.inMemory() {
						bytes += int64(w.ref.n)
						if w.ref.none() {
							alone++
						}
					}
					if places += alone; o.Journal != "" {
						unwritten += alone
					}
					for _, r := range l.disk {
						bytes += int64(r.n)
					}
					if l.bytes != bytes || l.places != alone {
						t.Fatalf("%s: %d bytes, want %d; %d places, want %d", company, l.bytes, bytes, l.places, alone)
					}
					if l.list == &q.ring {
						inRing += len(numbers)
					}
				}
				if q.waiting != waiting || q.inRing != inRing || q.places != places || q.kept != kept || q.unwritten != unwritten || q.running != 0 {
					t.Fatalf("%+v, want %d waiting, %d in the ring, %d places, %d kept, %d unwritten", q, waiting, inRing, places, kept, unwritten)
				}
			},
		})
	})
}
