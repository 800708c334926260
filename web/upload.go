package web

import (
	"bufio"
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// Bounds of the form that a file comes in.
const (
	maxFormFields = 16
	maxFormField  = 4 << 10 // bytes of a field that is not the file
	maxFileName   = 255     // characters
	formOverhead  = 64 << 10
)

// upload is a file that is being received. Its bytes go on as they come: nothing of
// it is held but what the reader has in hand.
type upload struct {
	g       *Gateway
	r       *request
	t       *transfer
	k       *KnowledgeSettings
	file    rag.File
	head    []byte
	began   bool // the file is noted in the store
	there   bool // its bytes are in the blob
	purpose string
	expires expiresAfter
	shared  *string
}

// createFile receives a file. The fields of the form may come before or behind it.
func (g *Gateway) createFile(r *request) (any, error) {
	k := &r.settings.Knowledge
	if n := int64(r.rc.Request.Header.ContentLength()); n > k.FileBytes+formOverhead {
		return nil, fileTooLarge(k.FileBytes)
	}
	t, err := g.transfers.begin(r.scope.ID().String(), k)
	if err != nil {
		return nil, err
	}
	defer t.end()
	u := &upload{g: g, r: r, t: t, k: k, file: rag.File{
		ID: openai.NewID("file-"), ProjectID: r.scope.ProjectID(), CreatedBy: r.scope.KeyID(), CreatedAt: g.now(),
	}}
	err = u.receive()
	if err == nil {
		err = u.finish()
	}
	if err == nil {
		return toFile(u.file), nil
	}
	if u.began {
		if dropped := g.dropUpload(r.scope, u.file.ID); dropped != nil && !errors.Is(dropped, tenant.ErrNotFound) {
			g.Log.Error("a file that was not received to its end is deleted later", "id", r.id, "error", dropped.Error())
		}
	}
	switch context.Cause(t.ctx) {
	case context.Canceled:
		err = errEnded
	case context.DeadlineExceeded:
		err = fault.New(fault.RequestTimeout, "The file was not sent within %s.", transferTime)
	}
	return nil, err
}

func isFault(err error) bool {
	_, ok := errors.AsType[*fault.Error](err)
	return ok
}

func fileTooLarge(limit int64) error {
	f := fault.New(fault.TooLarge, "The file is larger than %d bytes.", limit)
	f.Param = "file"
	return f
}

// receive reads the form to its end.
func (u *upload) receive() error {
	kind, params, err := mime.ParseMediaType(string(u.r.rc.Request.Header.ContentType()))
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return fault.New(fault.Invalid, "A file is sent as multipart/form-data, with the fields file and purpose.").WithCode("invalid_content_type")
	}
	body := u.r.rc.RequestBodyStream()
	if body == nil {
		return fault.Field("file", "file is required.")
	}
	conn := u.r.rc.Conn()
	// What waits for the client ends at once with the transfer.
	stop := context.AfterFunc(u.t.ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	announced := int64(u.r.rc.Request.Header.ContentLength())
	form := multipart.NewReader(&patient{r: body, left: u.k.FileBytes + formOverhead, whole: announced, late: func() error {
		if err := u.t.ctx.Err(); err != nil {
			return err
		}
		return conn.SetReadDeadline(time.Now().Add(u.r.settings.BodyTimeout))
	}}, params["boundary"])
	for n := 0; ; n++ {
		part, err := form.NextRawPart()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return formError(err)
		}
		if n >= maxFormFields {
			return fault.New(fault.Invalid, "The form has more than %d fields.", maxFormFields)
		}
		if err := u.field(part); err != nil {
			return err
		}
	}
}

// formError is what is told of a form that cannot be read.
func formError(err error) error {
	if isFault(err) {
		return err
	}
	if strings.HasPrefix(err.Error(), "multipart: NextPart: EOF") || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.Wrap(fault.Invalid, err, "The form was not sent to its end.")
	}
	if strings.HasPrefix(err.Error(), "multipart:") || strings.HasPrefix(err.Error(), "mime:") || strings.HasPrefix(err.Error(), "malformed MIME") {
		return fault.Wrap(fault.Invalid, err, "The body is not a good multipart form.")
	}
	return bodyError(err)
}

// field takes one field of the form.
func (u *upload) field(part *multipart.Part) error {
	name := part.FormName()
	if name == "file" {
		return u.receiveFile(part)
	}
	b, err := io.ReadAll(io.LimitReader(part, maxFormField+1))
	if err != nil {
		return formError(err)
	}
	if len(b) > maxFormField {
		return fault.Field(name, "The field is longer than %d bytes.", maxFormField)
	}
	value := string(b)
	switch name {
	case "purpose":
		u.purpose = value
		return checkPurpose(value)
	case "shared":
		u.shared = &value
		_, err := readShared(u.r.scope, u.shared)
		return err
	case "expires_after[anchor]", "expires_after[seconds]", "expires_after":
		return u.expires.set(name, value)
	}
	return fault.Field(name, "Unknown or unsupported field: %.64s.", name)
}

// receiveFile takes the file itself.
func (u *upload) receiveFile(part *multipart.Part) error {
	if u.there {
		return fault.Field("file", "There is more than one file in the form.")
	}
	u.file.Name = strings.TrimSpace(part.FileName())
	if err := checkFileName(u.file.Name); err != nil {
		return err
	}
	file := bufio.NewReaderSize(part, rag.HeadSize)
	head, err := file.Peek(rag.HeadSize)
	if err != nil && err != io.EOF {
		return formError(err)
	}
	u.head = append(u.head, head...) // Peek's memory is the reader's
	purpose := u.purpose
	if purpose == "" {
		purpose = rag.ForUserData // which takes more; it is looked at again
	}
	if err := u.checkType(purpose); err != nil {
		return err
	}
	u.file.Purpose = purpose
	if err := u.g.Knowledge.Files.BeginFile(u.t.ctx, u.r.scope, u.file, u.k.Quota); err != nil {
		return err
	}
	u.began = true
	size, err := u.g.Knowledge.Blobs.Put(u.t.ctx, u.r.scope, u.file.ID, &limited{file, u.k.FileBytes, u.k.FileBytes})
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if broken, ok := errors.AsType[*unread](err); ok {
		return formError(broken.err)
	}
	if err != nil {
		return blobAway(err)
	}
	u.file.Bytes, u.there = size, true
	return nil
}

func checkFileName(name string) error {
	switch {
	case name == "" || name == "." || name == "/":
		return fault.Field("file", "The file has no name: its part of the form needs filename=\"…\".")
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fault.Field("file", "The name of the file must be text in UTF-8.")
	case utf8.RuneCountInString(name) > maxFileName:
		return fault.Field("file", "The name of the file is longer than %d characters.", maxFileName)
	}
	return nil
}

func (u *upload) checkType(purpose string) error {
	u.file.Type = rag.TypeOf(purpose, u.file.Name, u.head)
	if u.file.Type == "" {
		return fault.Field("file", "A file of this type is not taken for %s: %s.", purpose, rag.TypesTaken).WithCode("unsupported_file_type")
	}
	return nil
}

// finish shows the file, if all is there and good.
func (u *upload) finish() (err error) {
	if !u.there {
		return fault.Field("file", "file is required.")
	}
	if err := checkPurpose(u.purpose); err != nil {
		return err
	}
	if u.file.Bytes == 0 {
		return fault.Field("file", "The file is empty.")
	}
	if err := u.checkType(u.purpose); err != nil {
		return err
	}
	u.file.Purpose = u.purpose
	if u.file.Shared, err = readShared(u.r.scope, u.shared); err != nil {
		return err
	}
	if u.file.ExpiresAt, err = u.expires.at(u.file.CreatedAt); err != nil {
		return err
	}
	return u.g.Knowledge.Files.FinishFile(u.t.ctx, u.r.scope, u.file, u.k.Quota)
}

// patient reads a body as long as it goes on: each read may take some time, and all
// of them together as long as a transfer may. It ends with an error where the body
// does before what its header says.
type patient struct {
	r     io.Reader
	left  int64 // that may still come
	got   int64
	whole int64 // as the header says; below 0: it does not
	late  func() error
}

func (p *patient) Read(b []byte) (int, error) {
	if err := p.late(); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	p.got += int64(n)
	switch {
	case p.got > p.left:
		return 0, fileTooLarge(p.left - formOverhead)
	case err == io.EOF && p.got < p.whole:
		return n, io.ErrUnexpectedEOF // fasthttp takes the end of the connection for the end of the body
	}
	return n, err
}

// unread is an error of the client's body, and not of where it goes.
type unread struct{ err error }

func (e *unread) Error() string { return "cannot read the file: " + e.err.Error() }
func (e *unread) Unwrap() error { return e.err }

// limited reads a file up to a limit.
type limited struct {
	r           io.Reader
	limit, left int64
}

func (l *limited) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if l.left -= int64(n); l.left < 0 {
		return 0, fileTooLarge(l.limit)
	}
	if err != nil && err != io.EOF {
		err = &unread{err}
	}
	return n, err
}
