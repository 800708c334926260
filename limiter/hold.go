package limiter

// held is one hold. Its place is used again by a later one, with another turn.
type held struct {
	turn              uint64
	company           *company // nil: free
	windows           [maxWindows]*window
	n                 int // of windows
	tokens            int64
	attempt           attempt
	claim             string // "" for none, or when it has ended
	settled, released bool
	next              int32 // free place after this one
}

// place takes from every window and count, writes the hold down and returns
// where.
func (l *Local) place(sh *shard, d *decision, c *company) (int32, uint64) {
	for _, w := range d.windows[:d.n] {
		w.take(d.need.requests, d.need.tokens)
	}
	i := sh.free
	if i < 0 {
		i = int32(len(sh.holds))
		sh.holds = append(sh.holds, held{next: -1})
	}
	h := &sh.holds[i]
	sh.free = h.next
	*h = held{turn: h.turn + 1, company: c, windows: d.windows, n: d.n, tokens: d.need.tokens, next: -1}
	if h.claim = d.ask.Claim; h.claim != "" {
		if c.claims == nil {
			c.claims = map[string]struct{}{}
		}
		c.claims[h.claim] = struct{}{}
	}
	if id := d.ask.ID; l.counts(d.ask) {
		h.attempt = attempt{id: id, by: d.ask.By, at: d.at, need: d.need}
		if c.attempts == nil {
			c.attempts = map[string]int32{}
		}
		c.attempts[id] = i
		sh.heldNano += d.need.nano
		c.counts.each(&h.attempt, func(n *count) { n.hold(&h.attempt.need) })
	}
	sh.newest = max(sh.newest, d.at)
	return i, h.turn
}

// find returns the hold with that id, nil if it has ended.
func (sh *shard) find(id HoldID) *held {
	i := id[0] & 0xffffffff
	if i >= uint64(len(sh.holds)) {
		return nil
	}
	h := &sh.holds[i]
	if h.turn != id[1] || h.company == nil {
		return nil
	}
	return h
}

// Settle implements Ender.
func (l *Local) Settle(id HoldID, used Used) {
	sh := &l.shards[id[0]>>32]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	h := sh.find(id)
	if h == nil || h.settled {
		return
	}
	h.settled = true
	now := l.now()
	for _, w := range h.windows[:h.n] {
		w.pass(now)
		w.settle(h.tokens, used.Tokens)
	}
	if a := &h.attempt; a.id != "" {
		a.used = used
		sh.heldNano -= a.need.nano
		h.company.counts.each(a, func(n *count) { n.settle(&a.need, used) })
	}
	l.leave(sh, h, id)
}

// Release implements Ender.
func (l *Local) Release(id HoldID) {
	sh := &l.shards[id[0]>>32]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	h := sh.find(id)
	if h == nil || h.released {
		return
	}
	h.released = true
	h.company.open--
	if l.o.TotalConcurrent >= 0 {
		l.open.Add(-1)
	}
	for _, w := range h.windows[:h.n] {
		w.open--
	}
	l.leave(sh, h, id)
}

// leave lets the windows of a hold go that is settled and released. What its
// attempt used stays known until it is in the store.
func (l *Local) leave(sh *shard, h *held, id HoldID) {
	if !h.settled || !h.released {
		return
	}
	for _, w := range h.windows[:h.n] {
		w.refs--
	}
	h.company.refs--
	if h.claim != "" {
		delete(h.company.claims, h.claim)
		h.claim = ""
	}
	h.windows, h.n = [maxWindows]*window{}, 0
	l.forget(sh, h, int32(id[0]&0xffffffff))
}

// forget frees the place of a hold of which nothing need be known any more.
func (l *Local) forget(sh *shard, h *held, place int32) {
	if !h.settled || !h.released {
		return
	}
	if id := h.attempt.id; id != "" {
		if !h.attempt.shipped {
			return
		}
		delete(h.company.attempts, id)
		l.attempts.Add(-1)
	}
	*h = held{turn: h.turn, next: sh.free} // the turn stays: this id never comes again
	sh.free = place
}
