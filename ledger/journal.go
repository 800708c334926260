package ledger

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// journal is a folder of segments, to which what becomes of attempts is written
// before and after each, so that it is there when the process is killed. New
// records go to the active segment; the others are sealed, and removed when
// nothing in them is needed. Nothing is ever changed in place.
//
// On Linux the active segment is a file with room behind what was written, of which
// this process has the pages as memory (mappedFile): a record is stored there, which
// survives the process as a write(2) does. The room is zeros, and is given up with
// the next segment; who is killed before leaves it for the next process to cut off.
//
// What was open when a segment began is written again into it (carryOpens), so
// that a segment needs no older one to say which attempts were under way, and a
// stream that runs for a day does not keep a day's segments.
//
// Its methods may be called from any goroutine.
type journal struct {
	dir   string
	o     *Options
	lock  *os.File
	bytes atomic.Int64 // of all segments

	mu       sync.Mutex
	buf      []byte              // of the record that is being written
	segments map[uint32]*segment // all, the active one included
	last     uint32              // the highest number ever used
	active   *segment            // nil while none can be made
	opens    []ref               // of open records, by handle - 1; none where the handle is free
	free     []handle
	dirty    bool // there is something for the next interval's fsync
	closed   bool
	failures int64
	err      error // of the last failure

	syncing sync.Mutex // who holds it syncs for all that wait for it

	kick chan struct{} // the keeper should look
	stop chan struct{}
	done chan struct{} // the keeper has ended; nil if it never began
}

// segment is one file of the journal. The journal's mu guards it but for what
// never changes.
type segment struct {
	number uint32
	path   string
	seed   uint32
	f      segmentFile

	size     int64 // of what is good in it
	full     int64 // the size at which the next one begins
	torn     bool  // there may be half a record behind size
	closes   int   // that are not in the store
	live     int64 // bytes of those
	opens    int   // attempts whose open record is the one in it
	carried  bool  // what was open when it began stands in it
	stands   bool  // and survives the machine, so that older ones may go
	sealed   bool
	damaged  bool // it is put aside in place of removed
	removed  bool
	heldBack bool  // a part of it could not be read: left where it is
	synced   int64 // up to where it survives the machine
	failed   bool  // an fsync failed: what is behind synced may be lost
}

// segmentFile is what a segment needs of its file. It may have room behind what was
// written, which reads as zeros.
type segmentFile interface {
	Write(b []byte) (int, error) // at the end of what was written
	ReadAt(b []byte, at int64) (int, error)
	Truncate(size int64) error // takes back what was written behind size
	Sync() error
	Seal() error // says that nothing more is written, and gives up the room
	Close() error
}

// ref says where the record of an entry is. The zero ref is nowhere.
type ref struct {
	segment, at uint32
	n           uint32 // bytes with the frame
	ended       uint32 // seconds since 1970, of a close
}

func (r ref) none() bool { return r.n == 0 }

func (r ref) place() place { return place{r.segment, r.at} }

// handle names an attempt whose open record matters; 0 is none.
type handle int32

// openAttempt is an attempt that is open in the journal.
type openAttempt struct {
	id     string
	handle handle
}

// Names in the folder.
const (
	lockName    = "lock"
	segmentExt  = ".journal"
	newExt      = ".new"    // a segment that is being made
	asideExt    = ".broken" // a damaged segment, kept for people to look at
	segmentName = "%010d"
)

var (
	errJournalClosed = errors.New("the journal is closed")
	errNoSegment     = errors.New("the journal has no file to write to")
	errNotSynced     = errors.New("the journal was not written to the disk")
)

// open writes that an attempt may be made now, and returns a handle to end it by.
func (j *journal) open(company string, e *Entry) (handle, error) {
	j.mu.Lock()
	j.buf = appendEntry(beginRecord(j.buf[:0], kindOpen), company, e)
	r, s, err := j.write()
	if err != nil {
		j.mu.Unlock()
		return 0, err
	}
	h := j.newHandle(r, s)
	end := s.size
	j.mu.Unlock()
	if j.o.Sync == SyncAlways {
		if err := j.durable(s, end); err != nil {
			j.void(h, e.ID)
			return 0, err
		}
	}
	return h, nil
}

// close writes how the attempt of h, if it has one, ended, and with now waits
// until that survives the machine. After an error the attempt is still open, and
// may be closed again.
func (j *journal) close(company string, e *Entry, h handle, now bool) (ref, error) {
	j.mu.Lock()
	j.buf = appendEntry(beginRecord(j.buf[:0], kindClose), company, e)
	r, s, err := j.write()
	if err != nil {
		j.mu.Unlock()
		return ref{}, err
	}
	r.ended = seconds(e.EndedAt)
	s.closes++
	s.live += int64(r.n)
	end := s.size
	if !now {
		j.endHandle(h)
		j.mu.Unlock()
		return r, nil
	}
	j.mu.Unlock()
	err = j.durable(s, end)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		s.closes--
		s.live -= int64(r.n)
		return ref{}, err
	}
	j.endHandle(h)
	return r, nil
}

// void writes that the attempt of h was not made, or that its entry is in the
// store without a close. Where that cannot be written and the process is killed,
// the attempt is swept: the store knows better, or it costs too much, not too
// little.
func (j *journal) void(h handle, id string) {
	if h == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf = append(beginRecord(j.buf[:0], kindVoid), id...)
	_, _, _ = j.write()
	j.endHandle(h)
}

// shipped writes that closes need not be shipped any more. Where that cannot be
// written they may be shipped again, which changes nothing.
func (j *journal) shipped(refs []ref) {
	const most = 2048 // places of 10 bytes at most in a record
	for len(refs) > 0 {
		n := min(len(refs), most)
		j.mu.Lock()
		j.buf = appendPlaces(beginRecord(j.buf[:0], kindDone), refs[:n])
		_, _, _ = j.write()
		for _, r := range refs[:n] {
			s := j.segments[r.segment]
			s.closes--
			s.live -= int64(r.n)
		}
		j.mu.Unlock()
		refs = refs[n:]
	}
	j.remove()
}

// write writes the record in buf to the active segment. The caller holds mu.
func (j *journal) write() (ref, *segment, error) {
	s := j.active
	switch {
	case j.closed:
		return ref{}, nil, errJournalClosed
	case s == nil || s.failed || s.size+maxRecord > math.MaxUint32: // offsets have 32 bits
		j.wake()
		return ref{}, nil, errNoSegment
	}
	if err := endRecord(j.buf, s.seed); err != nil {
		return ref{}, nil, err
	}
	at := s.size
	if err := s.append(j.buf); err != nil {
		j.failures++
		j.err = err
		return ref{}, nil, err
	}
	j.bytes.Add(int64(len(j.buf)))
	if s.size >= s.full {
		j.wake()
	}
	if !j.dirty && j.o.Sync > SyncAlways {
		j.dirty = true
		j.wake()
	}
	return ref{segment: s.number, at: uint32(at), n: uint32(len(j.buf))}, s, nil
}

// append writes b, whole or not at all: half a record in the middle of a segment
// would hide those behind it.
func (s *segment) append(b []byte) error {
	if s.torn {
		if err := s.f.Truncate(s.size); err != nil {
			return fmt.Errorf("cannot cut off what was written in part: %w", err)
		}
		s.torn = false
	}
	if _, err := s.f.Write(b); err != nil {
		s.torn = s.f.Truncate(s.size) != nil
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	s.size += int64(len(b))
	return nil
}

// newHandle returns a handle for the open record at r. The caller holds mu.
func (j *journal) newHandle(r ref, s *segment) handle {
	s.opens++
	if n := len(j.free); n > 0 {
		h := j.free[n-1]
		j.free = j.free[:n-1]
		j.opens[h-1] = r
		return h
	}
	j.opens = append(j.opens, r)
	return handle(len(j.opens))
}

// endHandles forgets open records.
func (j *journal) endHandles(all []handle) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, h := range all {
		j.endHandle(h)
	}
}

// endHandle forgets an open record. The caller holds mu.
func (j *journal) endHandle(h handle) {
	if h == 0 {
		return
	}
	r := &j.opens[h-1]
	j.segments[r.segment].opens--
	*r = ref{}
	j.free = append(j.free, h)
}

// holdBack notes that a close could not be read. Its segment stays as it is, for
// the next start to look at.
func (j *journal) holdBack(r ref) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.segments[r.segment]
	s.heldBack = true
	s.live -= int64(r.n)
}

// sparse returns a sealed segment that is kept for little, if there are many. The
// number is that of its closes that are not in the store.
func (j *journal) sparse() (number uint32, closes int, ok bool) {
	const many = 4
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.segments) <= many || j.active == nil {
		return 0, 0, false
	}
	for _, s := range j.segments {
		if s.sealed && s.closes > 0 && !s.damaged && !s.heldBack && s.live*4 < s.size && (!ok || s.number < number) {
			number, closes, ok = s.number, s.closes, true
		}
	}
	return number, closes, ok
}

// remove deletes the segments that nothing is needed of, oldest first, and puts
// damaged ones aside.
func (j *journal) remove() {
	j.mu.Lock()
	var newest uint32 // whose opens make those of older ones needless
	for _, s := range j.segments {
		if s.stands && s.number > newest {
			newest = s.number
		}
	}
	var gone []*segment
	for _, s := range j.segments {
		if s.sealed && s.number < newest && s.closes == 0 && s.opens == 0 && !s.heldBack {
			gone = append(gone, s)
		}
	}
	sortSegments(gone)
	for _, s := range gone {
		s.removed = true
		delete(j.segments, s.number)
		j.bytes.Add(-s.size)
	}
	j.mu.Unlock()
	for _, s := range gone {
		if err := s.drop(); err != nil {
			j.fail(err)
		}
	}
}

// drop ends a segment that is not needed.
func (s *segment) drop() error {
	err := s.f.Close()
	if s.damaged {
		return errors.Join(err, os.Rename(s.path, s.path+asideExt))
	}
	return errors.Join(err, os.Remove(s.path))
}

// fail counts what went wrong.
func (j *journal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failures++
	j.err = err
}

// wake makes the keeper look. It does not wait.
func (j *journal) wake() {
	select {
	case j.kick <- struct{}{}:
	default:
	}
}

// newSegment makes the file of a segment. It is there with its header, or not.
func (j *journal) newSegment(number uint32) (*segment, error) {
	var nonce [8]byte
	rand.Read(nonce[:]) // never fails: see crypto/rand
	header, seed := appendHeader(nil, number, binary.LittleEndian.Uint64(nonce[:]))
	s := &segment{number: number, path: j.path(number), seed: seed, size: headerSize, full: j.o.SegmentBytes, synced: headerSize}
	err := os.WriteFile(s.path+newExt, header, 0o600)
	if err == nil {
		s.f, err = j.o.openFile(s.path+newExt, s.full+s.full/8) // some is written before the next one has begun
	}
	if err == nil && j.o.Sync != SyncOff {
		err = s.f.Sync()
	}
	if err == nil {
		err = os.Rename(s.path+newExt, s.path)
	}
	if err == nil && j.o.Sync != SyncOff {
		err = syncFolder(j.dir)
	}
	if err != nil {
		if s.f != nil {
			_ = s.f.Close()
		}
		return nil, fmt.Errorf("cannot make a file of the journal: %w", errors.Join(err, removeAny(s.path+newExt), removeAny(s.path)))
	}
	return s, nil
}

func (j *journal) path(number uint32) string {
	return filepath.Join(j.dir, fmt.Sprintf(segmentName, number)+segmentExt)
}

func removeAny(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// openFile opens the file of a segment: with room, of a new one that is written to,
// and without to read from it and to cut it off.
func openFile(path string, room int64) (segmentFile, error) {
	if room > 0 {
		return openMapped(path, room)
	}
	return openPlain(path)
}

func openPlain(path string) (segmentFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	return plainFile{f}, err
}

// plainFile is a file that has no room behind what was written.
type plainFile struct{ *os.File }

// Seal implements segmentFile.
func (plainFile) Seal() error { return nil }

// syncFolder makes the names in a folder survive the machine.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// seconds returns t as ref keeps it.
func seconds(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 0), 1<<32-1))
}
