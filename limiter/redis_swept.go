package limiter

import (
	"context"
	"time"

	"bulkhead/tenant"
)

// look has it found out, behind the requests and once in a lease, whether the
// store has attempts that were ended by their lease. A gateway that dies after
// its entries came there, and before it said so here, leaves nobody who would
// say it: what it held would stay booked whole beside what the ledger has.
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
	ids := r.texts()
	if len(ids) == 0 || r.bad != nil {
		return
	}
	ctx, cancel = context.WithTimeout(context.Background(), l.o.BookTimeout)
	defer cancel()
	if ids, err = l.o.Book.Has(ctx, s, ids); err == nil {
		l.Shipped(s, ids)
	}
}
