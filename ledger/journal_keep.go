package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Sync says when what was written to the journal is made to survive the death of
// the machine; the death of the process it survives at once, whatever Sync is.
// Values above SyncAlways are intervals, as of time.Duration.
type Sync time.Duration

// The values of Sync that are no interval, and the default.
const (
	SyncOff     Sync = -1 // the system decides, some 30 s on Linux
	SyncAlways  Sync = 1  // before Slot.Open and Slot.Record return; those at the same time share one fsync
	SyncDefault      = Sync(10 * time.Millisecond)
)

// ParseSync reads "always", "off" or an interval from 1ms to 1m, such as "10ms".
func ParseSync(text string) (Sync, error) {
	switch text {
	case "always":
		return SyncAlways, nil
	case "off":
		return SyncOff, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Millisecond || d > time.Minute {
		return 0, fmt.Errorf(`%q is not "always", "off" or a time from 1ms to 1m`, text)
	}
	return Sync(d), nil
}

// durable returns when s survives the machine up to end. Who comes first syncs
// for all that wait.
func (j *journal) durable(s *segment, end int64) error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	return j.sync(s, end)
}

// sync makes s survive up to end, or all of it if there is more. The caller
// holds syncing. What an fsync has failed for is lost to the kernel, which says
// that the next one succeeds: nothing more goes to that segment.
func (j *journal) sync(s *segment, end int64) error {
	j.mu.Lock()
	synced, size, failed, removed := s.synced, s.size, s.failed, s.removed
	j.mu.Unlock()
	switch {
	case synced >= end || removed:
		return nil
	case failed:
		return errNotSynced
	}
	err := s.f.Sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil || s.removed { // what was removed need not survive
		s.synced = size
		return nil
	}
	s.failed = true
	j.failures++
	j.err = fmt.Errorf("cannot write the journal to the disk: %w", err)
	j.wake()
	return errNotSynced
}

// sure returns when the records at refs survive the machine.
func (j *journal) sure(refs []ref) error {
	ends := map[*segment]int64{}
	j.mu.Lock()
	for _, r := range refs {
		s := j.segments[r.segment]
		ends[s] = max(ends[s], int64(r.at+r.n))
	}
	j.mu.Unlock()
	for s, end := range ends {
		if err := j.durable(s, end); err != nil {
			return err
		}
	}
	return nil
}

// syncAll makes all that was written until now survive, the oldest first.
func (j *journal) syncAll() {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	j.dirty = false
	var behind []*segment
	for _, s := range j.segments {
		if s.synced < s.size && !s.failed {
			behind = append(behind, s)
		}
	}
	j.mu.Unlock()
	sortSegments(behind)
	for _, s := range behind {
		_ = j.sync(s, s.synced+1) // counted
	}
}

// Times of the keeper.
const (
	heartbeat  = 5 * time.Second  // between signs of life
	retryAfter = time.Second      // after something could not be done; then twice that, and so on
	retryMost  = 30 * time.Second // at most
)

// keep is the keeper: it begins segments, repeats in them what is open, syncs by
// the interval, and gives signs of life.
func (j *journal) keep() {
	defer close(j.done)
	var syncAt, tendAt time.Time // zero: nothing to sync; at once
	pause := retryAfter
	alive := time.Now()
	timer := time.NewTimer(heartbeat)
	defer timer.Stop()
	for {
		wait := heartbeat
		now := time.Now()
		if d := tendAt.Sub(now); d > 0 { // a disk that fails is not to be filled with segments
			wait = min(wait, d)
		} else if err := j.tend(); err != nil {
			j.fail(err)
			tendAt, wait = now.Add(pause), min(wait, pause)
			pause = min(2*pause, retryMost)
		} else {
			pause = retryAfter
		}
		if now = time.Now(); now.Sub(alive) >= heartbeat {
			alive = now
			j.sign(now)
		}
		j.mu.Lock()
		dirty := j.dirty
		j.mu.Unlock()
		switch {
		case !dirty:
			syncAt = time.Time{}
		case syncAt.IsZero():
			syncAt = now.Add(time.Duration(j.o.Sync))
		case !now.Before(syncAt):
			j.syncAll()
			syncAt = time.Time{}
			continue
		}
		if !syncAt.IsZero() {
			wait = min(wait, syncAt.Sub(now))
		}
		timer.Reset(wait)
		select {
		case <-j.kick:
		case <-timer.C:
		case <-j.stop:
			return
		}
	}
}

// sign makes the folder say that the process lives. A sign that is not given
// makes a swept attempt end too early, which is no reason to stop.
func (j *journal) sign(now time.Time) {
	_ = os.Chtimes(filepath.Join(j.dir, lockName), now, now)
}

// tend begins a segment if it is time and repeats in it what is open.
func (j *journal) tend() error {
	j.mu.Lock()
	s := j.active
	begin := s == nil || s.failed || s.carried && s.size >= s.full
	j.mu.Unlock()
	if begin {
		if err := j.begin(); err != nil {
			return err
		}
	}
	return j.carryOpens()
}

// begin begins a segment.
func (j *journal) begin() error {
	j.mu.Lock()
	j.last++ // also where it fails: a name is never used twice
	number := j.last
	j.mu.Unlock()
	s, err := j.newSegment(number)
	if err != nil {
		return err
	}
	j.mu.Lock()
	old := j.active
	if old != nil {
		old.sealed = true
	}
	j.segments[number], j.active = s, s
	j.bytes.Add(s.size)
	j.mu.Unlock()
	if old != nil { // it stays until s stands, so its file is open
		if err := old.f.Seal(); err != nil {
			j.fail(fmt.Errorf("cannot give room of the journal back: %w", err))
		}
	}
	return nil
}

// carryOpens writes the open records that stand in older segments to the active
// one, some at a time so that nobody waits for long, and then that it is done.
func (j *journal) carryOpens() error {
	var buf []byte
	for from, more := 0, true; more; {
		var err error
		if from, buf, more, err = j.carrySome(from, buf); err != nil {
			return err
		}
	}
	j.mu.Lock()
	s, end := j.active, j.active.size
	done := s.stands
	j.mu.Unlock()
	if done {
		return nil
	}
	if j.o.Sync != SyncOff { // else older ones may be gone from the disk before it is there
		if err := j.durable(s, end); err != nil {
			return err
		}
	}
	j.mu.Lock()
	s.stands = true
	j.mu.Unlock()
	j.remove()
	return nil
}

// carrySome carries some of the attempts with handles from+1 on, and returns
// where to go on.
func (j *journal) carrySome(from int, buf []byte) (next int, room []byte, more bool, err error) {
	const some = 32
	j.mu.Lock()
	defer j.mu.Unlock()
	to := j.active
	if to.carried {
		return 0, buf, false, nil
	}
	for n := 0; from < len(j.opens); from++ {
		o := &j.opens[from]
		if o.none() || o.segment == to.number {
			continue
		}
		if n++; n > some {
			return from, buf, true, nil
		}
		s := j.segments[o.segment]
		if buf, err = s.readRecord(*o, buf); err != nil {
			return from, buf, false, err
		}
		j.buf = append(beginRecord(j.buf[:0], kindOpen), buf[frameSize+1:]...)
		r, _, err := j.write()
		if err != nil {
			return from, buf, false, err
		}
		s.opens--
		to.opens++
		*o = r
	}
	j.buf = beginRecord(j.buf[:0], kindCarried)
	_, _, err = j.write()
	to.carried = err == nil
	to.full = max(to.full, 2*to.size) // so that what is carried is no more than what is new
	return from, buf, false, err
}

// end ends the journal: what is needed of it is on the disk, and the rest gone.
func (j *journal) end() error {
	if j.done != nil {
		close(j.stop)
		<-j.done
	}
	if j.o.Sync != SyncOff {
		j.syncAll()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	needed := false
	var all []*segment
	for _, s := range j.segments {
		needed = needed || s.closes > 0 || s.opens > 0
		all = append(all, s)
	}
	sortSegments(all)
	var errs []error
	if j.active != nil {
		errs = append(errs, j.active.f.Seal())
	}
	for _, s := range all {
		if needed {
			errs = append(errs, s.f.Close())
		} else {
			errs = append(errs, s.drop())
			j.bytes.Add(-s.size)
		}
	}
	if !needed {
		clear(j.segments)
	}
	j.active = nil
	return errors.Join(append(errs, j.lock.Close())...) // the kernel unlocks
}

func sortSegments(all []*segment) {
	slices.SortFunc(all, func(a, b *segment) int { return cmp.Compare(a.number, b.number) })
}
