package ledger

import (
	"time"

	"bulkhead/tenant"
)

// queue holds entries until they are in the store: a line per company, from
// which batches are taken in turn, so that a company with many entries does not
// keep another's waiting. The Ledger's lock guards it.
type queue struct {
	places  int // taken, by attempts that run and entries that wait
	waiting int // entries, those under way included
	lines   map[tenant.ID]*line

	ring    []*line   // healthy lines with entries
	turn    int       // where in the ring the next batch begins
	since   time.Time // when the ring was last shipped from, or began to fill
	inRing  int       // entries in the ring
	suspect []*line   // lines whose entries the store refuses while it takes others'

	failures int       // tries in a row that shipped nothing
	retryAt  time.Time // no try from the ring before; zero is at once
}

// line holds one company's entries, oldest first.
type line struct {
	id       tenant.ID
	places   int
	entries  []waiting
	at       int // index in ring or suspect, -1 in neither
	suspect  bool
	failures int
	retryAt  time.Time
}

type waiting struct {
	booked Booked
	since  time.Time
}

func (q *queue) placesOf(id tenant.ID) int {
	if l := q.lines[id]; l != nil {
		return l.places
	}
	return 0
}

func (q *queue) reserve(id tenant.ID) {
	l := q.lines[id]
	if l == nil {
		l = &line{id: id, at: -1}
		q.lines[id] = l
	}
	l.places++
	q.places++
}

func (q *queue) cancel(id tenant.ID) { q.free(q.lines[id], 1) }

// free gives n places of l back.
func (q *queue) free(l *line, n int) {
	q.places -= n
	if l.places -= n; l.places == 0 {
		delete(q.lines, l.id)
	}
}

// add puts an entry, which has a place, at the end of its line.
func (q *queue) add(b Booked, now time.Time) {
	l := q.lines[b.Scope.ID()]
	l.entries = append(l.entries, waiting{b, now})
	q.waiting++
	if l.suspect {
		return
	}
	if q.inRing++; q.inRing == 1 {
		q.since = now
	}
	if l.at < 0 {
		l.at = len(q.ring)
		q.ring = append(q.ring, l)
	}
}

// part is the beginning of a line that is being shipped. The line keeps it
// until done.
type part struct {
	l *line
	n int
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
		return []part{{l, min(len(l.entries), o.Batch)}}, 0
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
		l := q.ring[q.turn]
		q.turn++
		n := min(len(l.entries), share, room)
		parts = append(parts, part{l, n})
		if room -= n; room == 0 {
			break
		}
	}
	q.since = now
	return parts, 0
}

func sooner(wait, d time.Duration) time.Duration {
	if wait == 0 || d < wait {
		return d
	}
	return wait
}

// done drops a part that is in the store.
func (q *queue) done(p part) {
	l := p.l
	clear(l.entries[:p.n]) // the strings may go
	l.entries = l.entries[p.n:]
	q.waiting -= p.n
	if l.suspect {
		q.leave(&q.suspect, l)
		l.suspect, l.failures = false, 0
		if n := len(l.entries); n > 0 {
			l.at = len(q.ring)
			q.ring = append(q.ring, l)
			q.inRing += n
		}
	} else {
		q.inRing -= p.n
		if len(l.entries) == 0 {
			q.leave(&q.ring, l)
		}
	}
	if len(l.entries) == 0 {
		l.entries = nil
	}
	q.free(l, p.n)
}

// doubt sets a line apart, or keeps it apart for longer.
func (q *queue) doubt(l *line, o *Options, now time.Time) {
	if !l.suspect {
		q.leave(&q.ring, l)
		q.inRing -= len(l.entries)
		l.suspect, l.at = true, len(q.suspect)
		q.suspect = append(q.suspect, l)
	}
	l.failures++
	l.retryAt = now.Add(o.backoff(l.failures))
}

func (q *queue) leave(list *[]*line, l *line) {
	all := *list
	last := len(all) - 1
	all[l.at] = all[last]
	all[l.at].at = l.at
	all[last] = nil
	*list = all[:last]
	l.at = -1
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

func (q *queue) oldest() (t time.Time) {
	for _, lines := range [][]*line{q.ring, q.suspect} {
		for _, l := range lines {
			if s := l.entries[0].since; t.IsZero() || s.Before(t) {
				t = s
			}
		}
	}
	return t
}
