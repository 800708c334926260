package ledger

import (
	"time"

	"bulkhead/tenant"
)

// queue holds entries until they are in the store: a line per company, from
// which batches are taken in turn, so that a company with many entries does not
// keep another's waiting. The Ledger's lock guards it. Anyone may add; only the
// shipper takes away, so what it has seen at the head of a line stays there.
type queue struct {
	places    int // taken, by attempts that run and entries that are nowhere else
	running   int // attempts
	waiting   int // entries, those under way included
	kept      int // entries in memory
	unwritten int // entries in memory that should be in the journal and are not
	lines     map[string]*line
	spare     []*line // to be used again

	ring    []*line   // healthy lines with entries
	turn    int       // where in the ring the next batch begins
	since   time.Time // when the ring was last shipped from, or began to fill
	inRing  int       // entries in the ring
	suspect []*line   // lines whose entries the store refuses while it takes others'
	unknown []*line   // lines of an earlier process whose Scope is to be found

	failures int       // tries in a row that shipped nothing
	retryAt  time.Time // no try from the ring before; zero is at once
}

// line holds one company's entries, oldest first: those in memory, then those
// that are only in the journal.
type line struct {
	company  string
	scope    tenant.Scope // the newest, if known
	known    bool
	places   int
	mem      []waiting // from head on
	head     int
	disk     []ref
	bytes    int64    // of its entries in the journal
	list     *[]*line // ring, suspect or unknown; nil without entries
	at       int      // index in list
	failures int
	retryAt  time.Time
}

// waiting is an entry in memory.
type waiting struct {
	entry  Entry
	since  time.Time
	ref    ref    // none if it is not in the journal
	handle handle // of its attempt, which is open there for as long as ref is none
}

func (l *line) inMemory() []waiting { return l.mem[l.head:] }

func (l *line) count() int { return len(l.mem) - l.head + len(l.disk) }

// line returns the company's line, making one if there is none.
func (q *queue) line(company string) *line {
	if l := q.lines[company]; l != nil {
		return l
	}
	var l *line
	if n := len(q.spare); n > 0 {
		l = q.spare[n-1]
		q.spare = q.spare[:n-1]
	} else {
		l = new(line)
	}
	l.company = company
	q.lines[company] = l
	return l
}

// leave forgets the line if there is nothing in it.
func (q *queue) leave(l *line) {
	const spare, roomy = 64, 128
	if l.places > 0 || l.count() > 0 {
		return
	}
	delete(q.lines, l.company)
	if len(q.spare) < spare && cap(l.mem) <= roomy {
		*l = line{mem: l.mem[:0]}
		q.spare = append(q.spare, l)
	}
}

func (q *queue) reserve(s tenant.Scope) {
	l := q.line(s.ID().String())
	l.places++
	q.places++
	q.running++
	q.know(l, s)
}

// cancel gives the place of an attempt back.
func (q *queue) cancel(l *line) {
	q.running--
	q.free(l, 1)
	q.leave(l)
}

func (q *queue) free(l *line, n int) {
	q.places -= n
	l.places -= n
}

// know notes the Scope of a line.
func (q *queue) know(l *line, s tenant.Scope) {
	l.scope = s
	if l.known {
		return
	}
	l.known, l.failures = true, 0
	if l.list != nil {
		q.move(l, &q.ring)
	}
}

// add puts an entry at the end of its line. What is in the journal need not stay
// in memory, and does not where there is much.
func (q *queue) add(l *line, w waiting, o *Options) {
	q.waiting++
	switch {
	case w.ref.none():
		q.places++
		l.places++
		if o.Journal != "" {
			q.unwritten++
		}
		q.keep(l, w)
	case len(l.disk) > 0 || q.kept >= o.Memory || len(l.inMemory()) >= o.CompanyMemory:
		l.bytes += int64(w.ref.n)
		l.disk = append(l.disk, w.ref)
	default:
		l.bytes += int64(w.ref.n)
		q.keep(l, w)
	}
	q.added(l, 1)
}

func (q *queue) keep(l *line, w waiting) {
	if l.head > len(l.mem)/2 && len(l.mem) == cap(l.mem) {
		n := copy(l.mem, l.mem[l.head:])
		clear(l.mem[n:]) // the strings may go
		l.mem, l.head = l.mem[:n], 0
	}
	l.mem = append(l.mem, w)
	q.kept++
}

// addFound puts an earlier process's closes at the end of their line.
func (q *queue) addFound(l *line, refs []ref) {
	for _, r := range refs {
		l.bytes += int64(r.n)
	}
	l.disk = append(l.disk, refs...)
	q.waiting += len(refs)
	q.added(l, len(refs))
}

// added notes that there are n entries more in l.
func (q *queue) added(l *line, n int) {
	switch {
	case l.list == nil && l.known:
		q.move(l, &q.ring)
	case l.list == nil:
		q.move(l, &q.unknown)
	case l.list == &q.ring:
		q.inRing += n
	}
}

// move takes l out of the list that it is in, and puts it in to; nil is none.
func (q *queue) move(l *line, to *[]*line) {
	if l.list != nil {
		all := *l.list
		last := len(all) - 1
		all[l.at] = all[last]
		all[l.at].at = l.at
		all[last] = nil
		*l.list = all[:last]
	}
	if to != nil {
		l.at = len(*to)
		*to = append(*to, l)
		if to == &q.ring {
			if q.inRing == 0 {
				q.since = time.Now()
			}
			q.inRing += l.count()
		}
	}
	l.list = to
}

// part is the beginning of a line that is being shipped, in memory or on the
// disk. The line keeps it until done.
type part struct {
	l    *line
	n    int
	disk bool
}

// next returns the next n entries of l at most.
func (l *line) next(n int) part {
	if in := len(l.inMemory()); in > 0 {
		return part{l, min(n, in), false}
	}
	return part{l, min(n, len(l.disk)), true}
}

// take returns the next parts to ship, at most batch entries: those of one
// suspect line whose time has come, or a fair share of each healthy line.
// Without any, wait says when to ask again, 0 if nothing will come by itself.
func (q *queue) take(o *Options, now time.Time, hurry bool) (parts []part, wait time.Duration) {
	for _, l := range q.suspect {
		if d := l.retryAt.Sub(now); d > 0 {
			wait = sooner(wait, d)
			continue
		}
		return []part{l.next(o.Batch)}, 0
	}
	if q.inRing == 0 {
		return nil, wait
	}
	ready := q.retryAt
	if due := q.since.Add(o.Every); !hurry && q.inRing < o.Batch && due.After(ready) {
		ready = due
	}
	if d := ready.Sub(now); d > 0 {
		return nil, sooner(wait, d)
	}
	room := o.Batch
	share := max(room/len(q.ring), 1)
	for range len(q.ring) {
		if q.turn >= len(q.ring) {
			q.turn = 0
		}
		p := q.ring[q.turn].next(min(share, room))
		q.turn++
		parts = append(parts, p)
		if room -= p.n; room == 0 {
			break
		}
	}
	q.since = now
	return parts, 0
}

// sooner returns the shorter of two waits, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// done drops a part that is in the store.
func (q *queue) done(p part) {
	l := p.l
	suspect := l.list == &q.suspect
	q.drop(p)
	switch {
	case l.count() == 0:
		q.move(l, nil)
	case suspect:
		l.failures = 0
		q.move(l, &q.ring)
	}
	q.leave(l)
}

// drop takes a part away from its line.
func (q *queue) drop(p part) {
	l := p.l
	q.waiting -= p.n
	if l.list == &q.ring {
		q.inRing -= p.n
	}
	if p.disk {
		for _, r := range l.disk[:p.n] {
			l.bytes -= int64(r.n)
		}
		if l.disk = l.disk[p.n:]; len(l.disk) == 0 {
			l.disk = nil
		}
		return
	}
	gone := l.inMemory()[:p.n]
	for i := range gone {
		if w := &gone[i]; w.ref.none() {
			q.forgetUnwritten(l, w)
		} else {
			l.bytes -= int64(w.ref.n)
		}
	}
	clear(gone) // the strings may go
	q.kept -= p.n
	if l.head += p.n; l.head == len(l.mem) {
		l.mem, l.head = l.mem[:0], 0
	}
}

// forgetUnwritten gives back what an entry took that is only in memory.
func (q *queue) forgetUnwritten(l *line, w *waiting) {
	q.free(l, 1)
	q.unwritten = max(q.unwritten-1, 0) // it is 0 without a journal
}

// written notes that the i-th entry in the memory of l is in the journal now.
func (q *queue) written(l *line, i int, r ref) {
	w := &l.inMemory()[i]
	q.forgetUnwritten(l, w)
	w.ref = r
	l.bytes += int64(r.n)
}

// doubt sets a line apart, or keeps it apart for longer.
func (q *queue) doubt(l *line, o *Options, now time.Time) {
	if l.list == &q.ring {
		q.inRing -= l.count()
		q.move(l, &q.suspect)
	}
	l.failures++
	l.retryAt = now.Add(o.backoff(l.failures))
}

// failed notes a try that shipped nothing.
func (q *queue) failed(o *Options, now time.Time) {
	q.failures++
	q.retryAt = now.Add(o.backoff(q.failures))
}

// backoff is the pause after that many failures in a row.
func (o *Options) backoff(failures int) time.Duration {
	d := o.Every
	for i := 1; i < failures && d < o.MaxBackoff; i++ {
		d *= 2
	}
	return min(d, o.MaxBackoff)
}

// oldest returns when the oldest entry that waits was recorded.
func (q *queue) oldest() (t time.Time) {
	for _, lines := range [][]*line{q.ring, q.suspect, q.unknown} {
		for _, l := range lines {
			var s time.Time
			if in := l.inMemory(); len(in) > 0 {
				s = in[0].since
			} else {
				s = time.Unix(int64(l.disk[0].ended), 0)
			}
			if t.IsZero() || s.Before(t) {
				t = s
			}
		}
	}
	return t
}
