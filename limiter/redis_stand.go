package limiter

import (
	"context"
	"strconv"
	"time"

	"bulkhead/tenant"
)

// Standing implements Limiter.
func (l *Redis) Standing(ctx context.Context, s tenant.Scope, budgets []*tenant.Budget) ([]Standing, error) {
	o := l.enter(s.ID())
	defer l.done(o)
	l.look(s, o)
	all := make([]Standing, 0, len(budgets))
	var ends time.Time
	for len(budgets) > 0 {
		n := min(standAtOnce, len(budgets))
		some, err := l.stand(ctx, s, o, budgets[:n], &ends)
		if err != nil {
			return nil, err
		}
		all, budgets = append(all, some...), budgets[n:]
	}
	return all, nil
}

// stand says where some budgets stand.
func (l *Redis) stand(ctx context.Context, s tenant.Scope, o *redisCompany, budgets []*tenant.Budget, ends *time.Time) ([]Standing, error) {
	until := time.Now().Add(l.o.Patience)
	for range maxTries {
		quick, cancel := context.WithDeadline(ctx, until)
		all, missing, err := l.standNow(quick, o, budgets)
		cancel()
		switch {
		case err != nil:
			return nil, l.away(err)
		case all != nil:
			return all, nil
		case missing != nil:
			if err := l.awaitCounts(ctx, s, o, budgets, missing, ends); err != nil && err != errNotOpen {
				return nil, l.uncounted(err)
			}
			until = time.Now().Add(l.o.Patience)
		}
	}
	return nil, l.away(errTries)
}

// standNow says where the budgets stand, or what of them is to be read first. It
// says nothing where it has to be asked again.
func (l *Redis) standNow(ctx context.Context, o *redisCompany, budgets []*tenant.Budget) (all []Standing, missing []uncounted, err error) {
	asked := time.Now()
	reply, err := l.c.Run(ctx, scriptStand, o.keys, l.standArgs(o, budgets))
	if err != nil {
		return nil, nil, err
	}
	r := &reader{reply: reply}
	switch what := r.text(); what {
	case "stand":
		r.int()
		r.text()
		all = make([]Standing, len(budgets))
		for i, b := range budgets {
			var c count
			r.count(&c, r.int(), r.int())
			all[i] = c.standing(b.Unit)
		}
		return all, nil, r.bad
	case "count":
		r.text()
		return nil, r.uncounted(), r.bad
	case "join":
		return nil, nil, l.join(ctx, o)
	case "closed":
		return nil, nil, l.reopen(ctx, o, r.closed(asked))
	case "clock":
		l.offset.Store(r.int() - l.o.Now().UnixMicro())
		return nil, nil, r.bad
	default:
		return nil, nil, unexpected(what)
	}
}

func (l *Redis) standArgs(o *redisCompany, budgets []*tenant.Budget) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	args, now := l.head(o.believed()), l.moment()
	for _, b := range budgets {
		args = append(args, ownerField(b))
		args = append(args, o.periods.of(b, now)...)
	}
	return args
}

type unexpected string

func (u unexpected) Error() string { return "redis answered " + strconv.Quote(string(u)) }
