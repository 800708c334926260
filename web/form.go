package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
	"bulkhead/openai"
)

// readRequest reads the body in the form in which it was sent and scans it.
func (c *call) readRequest(rc *fasthttp.RequestCtx) error {
	contentType := string(rc.Request.Header.ContentType())
	form := bytes.HasPrefix(bytes.ToLower([]byte(contentType)), []byte("multipart/"))
	switch {
	case form && !c.endpoint.Form():
		return fault.New(fault.Invalid, "This endpoint takes JSON, not a form.").WithCode("unsupported_content_type")
	case !form && !c.endpoint.JSON():
		return fault.New(fault.Invalid, "This endpoint takes multipart/form-data.").WithCode("unsupported_content_type")
	case form:
		return c.readForm(rc, contentType)
	}
	body, err := c.readBody(rc)
	if err != nil {
		return err
	}
	return c.request.Scan(c.endpoint, body)
}

// readForm takes a form to where it can be read again, which every attempt does:
// the model may stand behind a file, and what is sent must be held for before.
func (c *call) readForm(rc *fasthttp.RequestCtx, contentType string) error {
	if _, err := openai.FormBoundary(contentType); err != nil {
		return err
	}
	c.form = &spool{c: c}
	if err := c.form.fill(rc); err != nil {
		return err
	}
	return c.request.ScanForm(c.endpoint, contentType, c.form, c.form.size)
}

// formMemory is how much of a form is kept in memory, in bytes. What is larger is
// in a file.
const formMemory = 256 << 10

// spool is the body of a form: small ones in memory, larger ones in a file that
// has no name any more, so that nobody else can open it and it is gone with the
// process.
type spool struct {
	c      *call
	memory []byte
	file   *os.File
	size   int64
	taken  int64 // bytes of the disk that are counted to the company
}

// fill reads the body to its end.
func (s *spool) fill(rc *fasthttp.RequestCtx) error {
	limit := s.c.settings.MaxForm
	size := int64(rc.Request.Header.ContentLength())
	if size > limit {
		return tooLarge(limit)
	}
	r := rc.RequestBodyStream()
	if r == nil {
		return fault.New(fault.Invalid, "The request has no body.")
	}
	if err := s.c.takeRoom(formMemory); err != nil {
		return err
	}
	buf := make([]byte, formMemory)
	for {
		n, err := io.ReadFull(r, buf)
		if werr := s.write(buf[:n], limit); werr != nil {
			return werr
		}
		ended := err == io.EOF || err == io.ErrUnexpectedEOF
		switch {
		case ended && s.size < size: // fasthttp takes the end of the connection for the end of the body
			return bodyError(io.ErrUnexpectedEOF)
		case ended:
			return nil
		case err != nil:
			return bodyError(err)
		}
	}
}

// write appends p, which is overwritten afterwards.
func (s *spool) write(p []byte, limit int64) error {
	if s.size+int64(len(p)) > limit {
		return tooLarge(limit)
	}
	if s.size == 0 && len(p) < formMemory { // all of it: only the last read is short
		s.memory, s.size = append([]byte(nil), p...), int64(len(p))
		return nil
	}
	if s.file == nil {
		f, err := os.CreateTemp(s.c.settings.FormDir, "form-*")
		if err != nil {
			return fmt.Errorf("cannot keep a form: %w", err)
		}
		s.file = f
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("cannot keep a form without a name: %w", err)
		}
	}
	if err := s.c.g.load.addDisk(s.c.company(), int64(len(p)), s.c.settings); err != nil {
		return err
	}
	s.taken += int64(len(p))
	if _, err := s.file.Write(p); err != nil {
		return fmt.Errorf("cannot keep a form: %w", err)
	}
	s.size += int64(len(p))
	return nil
}

// ReadAt is io.ReaderAt's.
func (s *spool) ReadAt(p []byte, at int64) (int, error) {
	if s.file != nil {
		return s.file.ReadAt(p, at)
	}
	if at >= int64(len(s.memory)) {
		return 0, io.EOF
	}
	n := copy(p, s.memory[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// close gives back what the form took. The nil spool has nothing.
func (s *spool) close() {
	if s == nil {
		return
	}
	if s.file != nil {
		_ = s.file.Close() // there is nothing to lose in it
	}
	s.c.g.load.endDisk(s.c.company(), s.taken)
	s.taken = 0 // memory stays: the provider's connection may still read it
}

var (
	errFormsTotal   = fault.New(fault.Unavailable, "The gateway is receiving more forms than it has room for. Try again.").WithCode("forms_in_flight")
	errFormsCompany = fault.New(fault.RateLimited, "Your company has too many bytes of forms in flight. Wait for some of its requests to end.").WithCode("forms_in_flight")
)

// addDisk takes room on the disk for n more bytes of a form.
func (l *load) addDisk(company string, n int64, s *Settings) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.of(company)
	switch {
	case c.disk+n > s.FormsPerCompany:
		return errFormsCompany
	case l.disk+n > s.FormsTotal:
		return errFormsTotal
	}
	c.disk += n
	l.disk += n
	return nil
}

// endDisk gives it back.
func (l *load) endDisk(company string, n int64) {
	if n == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.of(company)
	c.disk -= n
	l.disk -= n
	l.forget(company, c)
}

// CleanForms removes what forms a gateway that died has left in dir between
// making a file and taking its name away.
func CleanForms(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, root.Remove(e.Name()))
	}
	return err
}
