package openai

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"mime"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"bulkhead/fault"
)

// Limits on a body that is a form.
const (
	MaxFormParts  = 128
	MaxFormHeader = 8 << 10   // bytes of the header of one part
	MaxFormField  = 256 << 10 // bytes of a field that is no file
	maxBoundary   = 70        // RFC 2046, 5.1.1
)

// Form is a body of multipart/form-data (RFC 7578) as it was read: files stay
// where they are, and the form goes to the upstream byte for byte but for the
// model's name.
type Form struct {
	ContentType string // as the client sent it, with the boundary
	Size        int64  // bytes of the body
	FileBytes   int64  // of all files together

	boundary string
	model    Span64   // the value; zero where the form has none
	parts    []Span64 // header and content of each, without what parts them
}

// Span64 is the half-open range [Start, End) of the bytes of a form.
type Span64 struct{ Start, End int64 }

// FormBoundary returns the boundary in a Content-Type, if it is of a form. The
// error is a *fault.Error that a client may see.
func FormBoundary(contentType string) (string, error) {
	typ, params, err := mime.ParseMediaType(contentType)
	if err != nil || typ != "multipart/form-data" {
		return "", fault.New(fault.Invalid, "the Content-Type must be multipart/form-data with a boundary")
	}
	b := params["boundary"]
	if b == "" || len(b) > maxBoundary || strings.HasSuffix(b, " ") || strings.ContainsFunc(b, notBoundary) {
		return "", fault.New(fault.Invalid, "the boundary in the Content-Type is not valid")
	}
	return b, nil
}

// notBoundary is the complement of bchars in RFC 2046, 5.1.1.
func notBoundary(c rune) bool {
	return !(c < 0x80 && alnum(byte(c))) && !strings.ContainsRune("'()+_,-./:=? ", c)
}

func alnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// ScanForm reads body, size bytes of it, as a form sent to e, in one pass; files
// are passed over in pieces. It reads strictly what browsers and the official
// SDKs write, so that no vendor can read another model or field in it: no text
// before the first part, lines that end in CRLF, plain names in double quotes,
// no transfer encodings, no field of one value twice.
//
// The Request holds a copy of the names and texts it found. The error is a
// *fault.Error of kind Invalid that names the field in Param, or what body.ReadAt
// returned.
func (r *Request) ScanForm(e Endpoint, contentType string, body io.ReaderAt, size int64) error {
	if !e.Form() {
		panic("BUG: scan of a form for an endpoint that takes none")
	}
	boundary, err := FormBoundary(contentType)
	if err != nil {
		return err
	}
	*r = Request{Endpoint: e, N: 1, s: r.s, Texts: r.Texts[:0], Seen: r.Seen[:0]}
	r.Form = &Form{ContentType: contentType, Size: size, boundary: boundary}
	f := formScanner{r: r, body: body, size: size, delimiter: []byte("--" + boundary)}
	if err := f.scan(); err != nil {
		return err
	}
	return r.check()
}

// formScanner walks a form. Wherever the delimiter's bytes stand there must be a
// delimiter: some servers take one for it that stands within a line.
type formScanner struct {
	r         *Request
	body      io.ReaderAt
	size      int64
	delimiter []byte
	buf       []byte // of index
	names     map[string]bool
}

var errForm = fault.New(fault.Invalid, "the request body is not a valid multipart/form-data form")

func (f *formScanner) scan() error {
	at, err := f.index(0)
	if err != nil || at != 0 {
		return cmp.Or(err, error(errForm))
	}
	f.names = map[string]bool{}
	for parts := 0; ; parts++ {
		at += int64(len(f.delimiter))
		end, err := f.read(at, 2)
		switch {
		case err != nil:
			return err
		case string(end) == "--" && parts > 0:
			return f.closed(at + 2)
		case string(end) != "\r\n":
			return errForm
		case parts == MaxFormParts:
			return fault.New(fault.Invalid, "the form has more than %d parts", MaxFormParts)
		}
		if at, err = f.part(at + 2); err != nil {
			return err
		}
	}
}

// closed sees that nothing but one line's end follows the form.
func (f *formScanner) closed(at int64) error {
	tail, err := f.read(at, min(f.size-at, 3))
	if err == nil && len(tail) != 0 && string(tail) != "\r\n" {
		err = errForm
	}
	return err
}

// part reads the part whose header begins at at and returns where the delimiter
// after it begins.
func (f *formScanner) part(at int64) (next int64, err error) {
	header, err := f.header(at)
	if err != nil {
		return 0, err
	}
	p, err := readPartHeader(header)
	if err != nil {
		return 0, err
	}
	if bytes.Contains(header, f.delimiter) {
		return 0, errForm
	}
	start := at + int64(len(header)+len("\r\n\r\n"))
	if next, err = f.index(start); err != nil {
		return 0, err
	}
	end := next - int64(len("\r\n"))
	if next < 0 || end < start {
		return 0, errForm
	}
	if line, err := f.read(end, 2); err != nil || string(line) != "\r\n" {
		return 0, cmp.Or(err, error(errForm))
	}
	f.r.Form.parts = append(f.r.Form.parts, Span64{at, end})
	return next, f.value(p, Span64{start, end})
}

// index returns where the delimiter's bytes are next, from at on; -1 is nowhere.
func (f *formScanner) index(at int64) (int64, error) {
	if f.buf == nil {
		f.buf = make([]byte, 32<<10)
	}
	for at < f.size {
		b := f.buf[:min(int64(len(f.buf)), f.size-at)]
		if _, err := f.body.ReadAt(b, at); err != nil && err != io.EOF {
			return 0, err
		}
		if i := bytes.Index(b, f.delimiter); i >= 0 {
			return at + int64(i), nil
		}
		if at += int64(len(b) - len(f.delimiter) + 1); int64(len(b)) < int64(len(f.buf)) {
			break
		}
	}
	return -1, nil
}

// read returns n bytes from at on, fewer where the body ends.
func (f *formScanner) read(at, n int64) ([]byte, error) {
	b := make([]byte, max(min(n, f.size-at), 0))
	if len(b) == 0 {
		return b, nil
	}
	if _, err := f.body.ReadAt(b, at); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// header returns the header of the part at at, without the empty line.
func (f *formScanner) header(at int64) ([]byte, error) {
	buf, err := f.read(at, MaxFormHeader)
	if err != nil {
		return nil, err
	}
	i := bytes.Index(buf, []byte("\r\n\r\n"))
	if i <= 0 {
		return nil, fault.New(fault.Invalid, "a part of the form has no header, or one of more than %d bytes", MaxFormHeader)
	}
	return buf[:i], nil
}

// partHeader is what the header of a part says.
type partHeader struct {
	name string
	file bool
}

// readPartHeader reads what RFC 7578 has in it, and refuses what readers differ in.
func readPartHeader(header []byte) (p partHeader, err error) {
	for line := range strings.SplitSeq(string(header), "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !fieldName(name) || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f || c == utf8.RuneError }) {
			return p, errForm
		}
		value = strings.Trim(value, " \t")
		switch strings.ToLower(name) {
		case "content-disposition":
			if p.name != "" {
				return p, errForm
			}
			if p, err = disposition(value); err != nil {
				return p, err
			}
		case "content-transfer-encoding":
			if v := strings.ToLower(value); v != "binary" && v != "8bit" && v != "7bit" {
				return p, fault.New(fault.Invalid, "a part of the form has a Content-Transfer-Encoding, which forms do not have")
			}
		}
	}
	if p.name == "" {
		return p, errForm
	}
	return p, nil
}

// disposition reads form-data; name="…"; filename="…"; filename*=….
func disposition(value string) (p partHeader, err error) {
	typ, rest, _ := strings.Cut(value, ";")
	if !strings.EqualFold(strings.TrimSpace(typ), "form-data") {
		return p, errForm
	}
	seen := map[string]bool{}
	for rest != "" {
		name, value, ok := strings.Cut(strings.TrimLeft(rest, " \t"), "=")
		if !ok || seen[name] {
			return p, errForm
		}
		seen[name] = true
		var text string
		if text, rest, err = parameter(value, name == "filename*"); err != nil {
			return p, err
		}
		switch name {
		case "name":
			if !fieldName(text) {
				return p, fault.New(fault.Invalid, "the name of a field of the form is not plain text in double quotes")
			}
			p.name = text
		case "filename", "filename*":
			if p.file = text != ""; !p.file {
				return p, errForm // a file for some, a field for others
			}
		default:
			return p, errForm
		}
	}
	return p, nil
}

// extended is the value of a filename*, RFC 8187: utf-8'language'text.
var extended = regexp.MustCompile(`^(?i:utf-8)'[A-Za-z-]*'(?:[A-Za-z0-9!#$&+.^_|~\x60-]|%[0-9A-Fa-f]{2})+$`)

// parameter cuts the value of a parameter, and the semicolon behind it, off s. An
// extended one has no quotes, and any other has.
func parameter(s string, ext bool) (text, rest string, err error) {
	if ext {
		if text, rest, _ = strings.Cut(s, ";"); !extended.MatchString(text) {
			return "", "", errForm
		}
		return text, rest, nil
	}
	if !strings.HasPrefix(s, `"`) {
		return "", "", errForm
	}
	i := 1
	for ; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' { // readers differ in whether it escapes; it never may in a name
			i++
		}
	}
	if i >= len(s) {
		return "", "", errForm
	}
	text, rest = s[1:i], strings.TrimLeft(s[i+1:], " \t")
	if rest != "" && rest[0] != ';' {
		return "", "", errForm
	}
	return text, strings.TrimPrefix(rest, ";"), nil
}

// fieldName reports whether s is a name as forms for this API have them.
func fieldName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alnum(c) && !strings.ContainsRune("_.-[]", rune(c)) {
			return false
		}
	}
	return true
}

// manyFields may come more than once without brackets: a list.
var manyFields = []string{"image", "include", "timestamp_granularities", "languages", "keywords", "known_speaker_names", "known_speaker_references"}

// formFields are the names the gateway reads in forms. A name that differs from
// one of these in case or in brackets is refused: a server may take it for one.
var formFields = []string{"model", "prompt", "n", "stream", "partial_images", "user", "response_format", "file", "mask"}

// value takes in one field or file.
func (f *formScanner) value(p partHeader, at Span64) error {
	r := f.r
	plain := strings.TrimSuffix(p.name, "[]")
	for _, known := range formFields {
		if p.name != known && strings.EqualFold(plain, known) {
			return fault.Field(known, "a field is ambiguous: its name differs from %q only in case or brackets", known)
		}
	}
	if f.names[p.name] && plain == p.name && !slices.Contains(manyFields, plain) {
		return fault.Field(plain, "the form has %s twice", plain)
	}
	f.names[p.name] = true
	name := r.keep(plain)
	r.Seen = append(r.Seen, Seen{Where: Field, Name: name})
	if p.file {
		r.Form.FileBytes += at.End - at.Start
		return f.file(plain, at.End-at.Start)
	}
	if at.End-at.Start > MaxFormField {
		return fault.Field(plain, "%s is longer than %d bytes", plain, MaxFormField)
	}
	text, err := f.read(at.Start, at.End-at.Start)
	if err != nil {
		return err
	}
	if plain == "model" {
		r.Form.model = at
	}
	return r.formField(plain, string(text))
}

// keep copies a text that the Request refers to.
func (r *Request) keep(text string) Span {
	start := len(r.Body)
	r.Body = append(r.Body, text...)
	return Span{start, len(r.Body)}
}

// file counts a file of a form.
func (f *formScanner) file(name string, size int64) error {
	r := f.r
	switch {
	case name == "file" && (r.Endpoint == Transcriptions || r.Endpoint == Translations):
		r.Audios++
		r.AudioBytes = size
		if size == 0 {
			return fault.Field("file", "file is empty")
		}
	case name == "image" && (r.Endpoint == ImageEdits || r.Endpoint == ImageVariations):
		if r.Images++; r.Images > MaxEditImages {
			return fault.Field("image", "there are more than %d images", MaxEditImages)
		}
	case name == "mask" && r.Endpoint == ImageEdits:
		r.LowImages++ // as large as the image, and read for where it is transparent
		r.Images++
	case slices.Contains(formFields, name):
		return fault.Field(name, "%s must not be a file", name)
	default:
		r.Files++
	}
	return nil
}

// formField reads a field that is no file.
func (r *Request) formField(name, text string) (err error) {
	if !utf8.ValidString(text) {
		return fault.Field(name, "%s is not valid UTF-8", name)
	}
	switch name {
	case "file", "mask", "image":
		return fault.Field(name, "%s must be a file", name)
	case "model":
		switch {
		case text == "" || len(text) > MaxModelName:
			return fault.Field("model", "model must have 1 to %d bytes", MaxModelName)
		case hasControl(text):
			return fault.Field("model", "model must not hold control characters")
		}
		r.Model = text
	case "user":
		if r.User = text; len(text) > MaxUserName {
			return fault.Field("user", "user is longer than %d bytes", MaxUserName)
		}
	case "n":
		n, err := strconv.ParseUint(text, 10, 8)
		if err != nil || n < 1 || n > MaxImages || text[0] == '0' || text[0] == '+' {
			return fault.Field("n", "n must be an integer from 1 to %d", MaxImages)
		}
		r.N = int64(n)
	case "partial_images":
		return r.setPartialImages(text)
	case "stream":
		if r.Stream = text == "true"; !r.Stream && text != "false" {
			return fault.Field("stream", "stream must be true or false")
		}
	case "response_format":
		r.FormatText = text == "text" || text == "srt" || text == "vtt"
	case "prompt":
		r.InputItems = 1
		fallthrough
	default:
		r.countRaw(r.keep(text))
	}
	return nil
}

// Digest returns a hash of what is in the form, whatever its boundary is: SDKs make
// a new one each time they send it. body is what was scanned.
func (f *Form) Digest(body io.ReaderAt) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for _, at := range f.parts {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(at.End-at.Start))
		h.Write(size[:])
		if _, err := io.Copy(h, io.NewSectionReader(body, at.Start, at.End-at.Start)); err != nil {
			return sum, err
		}
	}
	h.Sum(sum[:0])
	return sum, nil
}

// Reader returns what gives the form as the upstream is to see it, each time from
// its start, and its size: with that name of the model. body is what was scanned.
func (f *Form) Reader(body io.ReaderAt, model string) (open func() io.Reader, size int64) {
	with, at := model, f.model
	if at.End == 0 { // no field: put one before all others
		with, at = "--"+f.boundary+"\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n"+model+"\r\n", Span64{}
	}
	open = func() io.Reader {
		return io.MultiReader(io.NewSectionReader(body, 0, at.Start), strings.NewReader(with), io.NewSectionReader(body, at.End, f.Size-at.End))
	}
	return open, f.Size - (at.End - at.Start) + int64(len(with))
}
