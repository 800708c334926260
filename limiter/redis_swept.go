package limiter

import (
	"context"
	"slices"
	"time"

	"bulkhead/tenant"
)

// look has it found out, behind the requests and once in a lease, whether the
// store has attempts that were ended by their lease. A gateway that dies after
// its entries came there, and before it said so here, leaves nobody who would
// say it: what it held would stay booked whole beside what the ledger has. So would
// what it held and had not sent, which only its journal can tell: see Over.
func (l *Redis) look(s tenant.Scope, o *redisCompany) {
	last, now := o.looked.Load(), time.Now().UnixNano()
	if l.o.Book != nil && now-last > int64(l.o.Lease) && o.looked.CompareAndSwap(last, now) {
		l.spawn(func() { l.lookNow(s) })
	}
}

func (l *Redis) lookNow(s tenant.Scope) {
	o := l.enter(s.ID())
	defer l.done(o)
	ctx, cancel := context.WithTimeout(context.Background(), l.behind())
	defer cancel()
	reply, err := l.c.Run(ctx, scriptSwept, o.keys, l.head(""))
	r := &reader{reply: reply}
	if err != nil || r.text() != "swept" {
		return // the next time
	}
	over := l.registry.ended() // before the Book is asked
	var ids []string
	never := map[string]bool{}
	for r.more() {
		id, owner := r.text(), r.text()
		ids = append(ids, id)
		never[id] = slices.Contains(over, owner)
	}
	if len(ids) == 0 || r.bad != nil {
		return
	}
	asking, stop := context.WithTimeout(context.Background(), l.o.BookTimeout)
	defer stop()
	there, err := l.o.Book.Has(asking, s, ids)
	if err != nil {
		return
	}
	l.Shipped(s, there)
	for _, id := range there {
		never[id] = false
	}
	var args []string
	for _, id := range ids {
		if never[id] {
			args = append(args, "x", id, "0", "0")
		}
	}
	if len(args) > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), l.behind())
		defer cancel()
		_, _ = l.c.Run(ctx, scriptFlush, o.keys, append(l.head(""), args...)) // else the next time
	}
}

// Process is the name of this process in Redis, without spaces: another one each
// time.
func (l *Redis) Process() string { return l.id }

// Over says that these processes have ended, by their names, and that all that they
// have sent is in the Book. What they held besides is not booked then, or not any
// more: no provider has seen it. Every gateway hears of it and looks for that where it
// is asked for the company, within two leases or so.
func (l *Redis) Over(processes []string) {
	g := &l.registry
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = slices.Clone(processes)
}

// ended are the processes that are over, as far as is known here.
func (g *registry) ended() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := slices.Clone(g.over)
	if g.view != nil {
		all = append(all, g.view.over...)
	}
	return all
}
