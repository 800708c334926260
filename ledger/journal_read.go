package ledger

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
)

// readRecord reads the record at r, with its frame, into buf or into room.
func (s *segment) readRecord(r ref, buf []byte) (room []byte, err error) {
	if cap(buf) < int(r.n) {
		buf = make([]byte, r.n, 2*r.n)
	}
	buf = buf[:r.n]
	if _, err := s.f.ReadAt(buf, int64(r.at)); err != nil {
		return buf, fmt.Errorf("cannot read the journal: %w", err)
	}
	if recordAt(buf, s.seed) != len(buf) {
		return buf, s.changed()
	}
	return buf, nil
}

func (s *segment) changed() error {
	return fmt.Errorf("a record of %s has changed on the disk", filepath.Base(s.path))
}

// chunk is a stretch of a segment in memory.
type chunk struct {
	segment uint32
	from    int64
	data    []byte
}

// entry returns the entry of the close at refs[0], and whose it is. c is what was
// read before; where it does not help, as much is read as the next of refs need,
// because closes that are shipped together mostly stand together.
func (j *journal) entry(refs []ref, c *chunk) (company string, e Entry, err error) {
	r := refs[0]
	j.mu.Lock()
	s := j.segments[r.segment] // is there for as long as its closes are not shipped
	j.mu.Unlock()
	at := int64(r.at) - c.from
	if c.segment != r.segment || at < 0 || at+int64(r.n) > int64(len(c.data)) {
		if err := c.read(s, refs); err != nil {
			return "", e, err
		}
		at = 0
	}
	b := c.data[at : at+int64(r.n)]
	if recordAt(b, s.seed) != len(b) || kind(b[frameSize]) != kindClose {
		return "", e, s.changed()
	}
	return decodeEntry(b[frameSize+1:])
}

// read reads on from refs[0].
func (c *chunk) read(s *segment, refs []ref) error {
	const most = 256 << 10
	first := refs[0]
	n := first.n
	for _, r := range refs[1:] {
		if r.segment != first.segment || r.at < first.at || r.at-first.at+r.n > most {
			break
		}
		n = max(n, r.at-first.at+r.n)
	}
	if cap(c.data) < int(n) {
		c.data = make([]byte, n)
	}
	c.segment, c.from, c.data = first.segment, int64(first.at), c.data[:n]
	got, err := s.f.ReadAt(c.data, c.from)
	c.data = c.data[:got]
	if got < int(first.n) {
		c.data = c.data[:0]
		return fmt.Errorf("cannot read the journal: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}

// copyClose writes the close at r once more, to the active segment. buf is room.
func (j *journal) copyClose(r ref, buf []byte) (copied ref, room []byte, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if buf, err = j.segments[r.segment].readRecord(r, buf); err != nil {
		return ref{}, buf, err
	}
	j.buf = append(beginRecord(j.buf[:0], kindClose), buf[frameSize+1:]...)
	copied, s, err := j.write()
	if err != nil {
		return ref{}, buf, err
	}
	copied.ended = r.ended
	s.closes++
	s.live += int64(copied.n)
	return copied, buf, nil
}
