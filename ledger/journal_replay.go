package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// found is what a journal says of the attempts of earlier processes.
type found struct {
	closes map[string][]ref // by company, those that are not known to be in the store
	opens  []foundOpen      // attempts without a close
	alive  time.Time        // when the last process still lived
	cut    int64            // bytes of a write that was broken off
	damage []error
	aside  []string // damaged segments of earlier starts, by file
}

// foundOpen is an attempt that an earlier process did not close.
type foundOpen struct {
	company string
	entry   Entry
	handle  handle
}

// openJournal locks the folder, reads what is in it and returns the journal, in
// which nothing can be written before its keeper began a segment. Nothing in the
// folder is changed where it returns an error.
func openJournal(ctx context.Context, o *Options) (*journal, *found, error) {
	if err := os.MkdirAll(o.Journal, 0o700); err != nil {
		return nil, nil, fmt.Errorf("cannot make the journal: %w", err)
	}
	lock, err := lockFolder(o.Journal)
	if err != nil {
		return nil, nil, err
	}
	j := &journal{
		dir: o.Journal, o: o, lock: lock, segments: map[uint32]*segment{},
		kick: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	r := replay{j: j, found: &found{closes: map[string][]ref{}}, opens: map[string]openAt{}, dead: map[place]struct{}{}}
	if err = r.run(ctx); err == nil {
		err = r.sign()
	}
	if err != nil {
		for _, s := range j.segments {
			_ = s.f.Close()
		}
		return nil, nil, errors.Join(fmt.Errorf("cannot read the journal in %s: %w", o.Journal, err), lock.Close())
	}
	return j, r.found, nil
}

// lockFolder makes this process the folder's owner until the file is closed, by
// whatever death.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the journal: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		who := make([]byte, 20)
		n, _ := f.ReadAt(who, 0)
		err = fmt.Errorf("process %s uses it; each gateway needs a folder of its own", strings.TrimSpace(string(who[:n])))
	}
	return nil, errors.Join(fmt.Errorf("cannot lock the journal in %s: %w", dir, err), f.Close())
}

// replay reads a folder.
type replay struct {
	j     *journal
	found *found
	opens map[string]openAt  // by attempt
	dead  map[place]struct{} // closes that need not be shipped
	hurt  uint32             // the last damaged segment
	half  []string           // files of segments that were not made to the end
	data  []byte             // of the segment that is read
}

type openAt struct {
	company string
	ref     ref
}

func (r *replay) run(ctx context.Context) error {
	numbers, written, err := r.list()
	if err != nil {
		return err
	}
	var repairs []func() error
	for _, n := range numbers {
		if err := ctx.Err(); err != nil {
			return err
		}
		repair, err := r.segment(n, n >= written)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(r.j.path(n)), err)
		}
		if repair != nil {
			repairs = append(repairs, repair)
		}
	}
	for _, f := range repairs {
		if err := f(); err != nil {
			return err
		}
	}
	r.count()
	return r.sweep()
}

// list returns the numbers of the segments in order, and the one that was written
// to last: those behind it were only made. It notes what else is in the folder.
func (r *replay) list() (numbers []uint32, written uint32, err error) {
	files, err := os.ReadDir(r.j.dir) // sorted by name, which begins with the number
	if err != nil {
		return nil, 0, err
	}
	for _, f := range files {
		name := f.Name()
		number, ext, _ := strings.Cut(name, ".")
		n, err := strconv.ParseUint(number, 10, 32)
		if name != lockName && err != nil {
			continue
		}
		info, err := f.Info()
		if err != nil {
			return nil, 0, err
		}
		if info.ModTime().After(r.found.alive) {
			r.found.alive = info.ModTime()
		}
		r.j.last = max(r.j.last, uint32(n))
		switch "." + ext {
		case segmentExt + newExt:
			r.half = append(r.half, name)
		case segmentExt:
			numbers = append(numbers, uint32(n))
			begun, err := hasRecord(filepath.Join(r.j.dir, name))
			if err != nil {
				return nil, 0, err
			}
			if begun {
				written = uint32(n)
			}
		case segmentExt + asideExt:
			r.found.aside = append(r.found.aside, name)
		}
	}
	return numbers, written, nil
}

// hasRecord reports whether a record was written to a segment, which may have room
// for some.
func hasRecord(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	var length [4]byte
	n, err := f.ReadAt(length[:], headerSize)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n > 0 && length != [4]byte{}, err
}

// segment reads one segment; last says that no record was written to a later one.
// repair is what must be done to it once all can be read; nil is nothing.
func (r *replay) segment(number uint32, last bool) (repair func() error, err error) {
	path := r.j.path(number)
	if err := r.load(path); err != nil {
		return nil, err
	}
	seed, err := readHeader(r.data, number)
	if errors.Is(err, errNewer) {
		return nil, err
	}
	if err != nil && last && strings.Trim(string(r.data), "\x00") == "" {
		r.found.cut += int64(len(r.data)) // the machine died before its header was on the disk
		return func() error { return os.Remove(path) }, nil
	}
	if err != nil {
		r.damaged(number, err)
		return func() error { return os.Rename(path, path+asideExt) }, nil
	}
	end, holes, _ := readRecords(r.data, seed, nil)    // first, because damage changes what records mean
	tail := len(bytes.TrimRight(r.data[end:], "\x00")) // zeros are room for more
	size := end + tail
	if tail > 0 && (!last || len(holes) > 0) {
		holes, tail = append(holes, hole{end, size}), 0
	}
	s := &segment{number: number, path: path, seed: seed, sealed: true, size: int64(size), synced: int64(size)}
	for _, h := range holes {
		s.damaged = true
		r.damaged(number, fmt.Errorf("%d bytes at %d cannot be read", h.to-h.from, h.from))
	}
	_, _, err = readRecords(r.data, seed, func(k kind, payload []byte, at int) error {
		err := r.record(s, k, payload, ref{segment: number, at: uint32(at), n: uint32(frameSize + 1 + len(payload))})
		if err != nil && !errors.Is(err, errNewer) {
			s.damaged = true
			r.damaged(number, fmt.Errorf("the record at %d: %w", at, err))
			err = nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.f, err = r.j.o.openFile(path, 0); err != nil {
		return nil, err
	}
	r.j.segments[number] = s
	r.j.bytes.Add(s.size)
	if size -= tail; size == len(r.data) {
		return nil, nil
	}
	r.found.cut += int64(tail)
	return func() error {
		s.size, s.synced = int64(size), int64(size)
		r.j.bytes.Add(-int64(tail))
		return errors.Join(s.f.Truncate(s.size), s.f.Sync())
	}, nil
}

// load reads a file into data, which is used again for the next one.
func (r *replay) load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if n := int(info.Size()); cap(r.data) < n {
		r.data = make([]byte, n)
	} else {
		r.data = r.data[:n]
	}
	if len(r.data) > 0 {
		_, err = f.ReadAt(r.data, 0)
	}
	return err
}

func (r *replay) damaged(number uint32, err error) {
	r.hurt = number
	r.found.damage = append(r.found.damage, fmt.Errorf("%s: %w", filepath.Base(r.j.path(number)), err))
}

// record takes in one record.
func (r *replay) record(s *segment, k kind, payload []byte, at ref) error {
	switch k {
	case kindOpen, kindClose:
		company, e, err := decodeEntry(payload)
		if err != nil {
			return err
		}
		if k == kindOpen {
			r.opens[e.ID] = openAt{company, at}
			return nil
		}
		delete(r.opens, e.ID)
		at.ended = seconds(e.EndedAt)
		if _, there := r.found.closes[company]; !there {
			company = strings.Clone(company) // not the whole record
		}
		r.found.closes[company] = append(r.found.closes[company], at)
	case kindVoid:
		delete(r.opens, string(payload))
	case kindDone:
		return readPlaces(payload, func(p place) { r.dead[p] = struct{}{} })
	case kindCarried:
		r.carried(s)
	default:
		return fmt.Errorf("record of kind %d: %w", k, errNewer)
	}
	return nil
}

// carried forgets the opens that are not in s: they were closed, and what said so
// was removed when it was in the store. Where a segment since is damaged, what is
// missing may be the close or the open in s, and they are kept: of those that
// were closed the store knows better.
func (r *replay) carried(s *segment) {
	s.carried = true
	for id, o := range r.opens {
		if o.ref.segment < s.number && o.ref.segment > r.hurt {
			delete(r.opens, id)
		}
	}
}

// count leaves out the closes that need not be shipped, and counts the others.
func (r *replay) count() {
	for company, refs := range r.found.closes {
		kept := refs[:0]
		for _, at := range refs {
			if _, dead := r.dead[at.place()]; dead {
				continue
			}
			kept = append(kept, at)
			s := r.j.segments[at.segment]
			s.closes++
			s.live += int64(at.n)
		}
		if r.found.closes[company] = kept; len(kept) == 0 {
			delete(r.found.closes, company)
		}
	}
}

// sweep makes entries of the attempts that were not closed: they may have been
// made and billed, so what was held is booked, whole.
func (r *replay) sweep() error {
	now := time.Now()
	var buf []byte
	for _, o := range r.opens {
		s := r.j.segments[o.ref.segment]
		var err error
		if buf, err = s.readRecord(o.ref, buf); err != nil {
			return err
		}
		company, e, err := decodeEntry(buf[frameSize+1:])
		if err != nil {
			return err
		}
		e.Outcome, e.Rank = Swept, ByLease
		e.CostNano, e.LowNano = e.HighNano, 0
		if e.EndedAt = r.found.alive.UTC(); e.EndedAt.After(now) {
			e.EndedAt = now.UTC()
		}
		if e.EndedAt.Before(e.StartedAt) {
			e.EndedAt = e.StartedAt
		}
		r.found.opens = append(r.found.opens, foundOpen{company, e, r.j.newHandle(o.ref, s)})
	}
	return nil
}

// sign removes what was half made and writes into the lock whose the folder is.
func (r *replay) sign() error {
	for _, name := range r.half {
		if err := os.Remove(filepath.Join(r.j.dir, name)); err != nil {
			return err
		}
	}
	_, _ = r.j.lock.WriteAt(fmt.Appendf(nil, "%-19d\n", os.Getpid()), 0) // for the error of another process only
	return nil
}
