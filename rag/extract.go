package rag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"time"
)

// ExtractError says why a file has no text for us, in words for its owner.
type ExtractError FileError

func (e *ExtractError) Error() string { return e.Message }

func invalid(format string, a ...any) *ExtractError {
	return &ExtractError{InvalidFile, fmt.Sprintf(format, a...)}
}

// Media types that text is made of.
const (
	typeText     = "text/plain"
	typeMarkdown = "text/markdown"
	typeHTML     = "text/html"
	typeCSV      = "text/csv"
	typeJSON     = "application/json"
	typePDF      = "application/pdf"
	typeDOCX     = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
)

// typesByName are the types of files by what their names end with.
var typesByName = map[string]string{
	".txt": typeText, ".text": typeText, ".log": typeText, ".rst": typeText, ".yaml": typeText, ".yml": typeText, ".toml": typeText, ".ini": typeText,
	".xml": typeText, ".tex": typeText, ".sql": typeText, ".c": typeText, ".h": typeText, ".cpp": typeText, ".cs": typeText, ".go": typeText,
	".java": typeText, ".js": typeText, ".mjs": typeText, ".ts": typeText, ".php": typeText, ".py": typeText, ".rb": typeText, ".rs": typeText,
	".sh": typeText, ".css": typeText,
	".md": typeMarkdown, ".markdown": typeMarkdown, ".html": typeHTML, ".htm": typeHTML, ".csv": typeCSV, ".tsv": typeCSV,
	".json": typeJSON, ".jsonl": typeJSON, ".pdf": typePDF, ".docx": typeDOCX,
}

// HeadSize is how much of a file TypeOf looks at.
const HeadSize = 1024

// TypeOf returns the media type of a file, by its name and by how it begins; "" is
// that it is none that is taken for the purpose. Pictures are for user_data only:
// nothing is read in them.
func TypeOf(purpose, name string, head []byte) string {
	t := typesByName[strings.ToLower(path.Ext(name))]
	switch t {
	case typePDF:
		if !bytes.Contains(head, []byte("%PDF-")) {
			return ""
		}
	case typeDOCX:
		if !bytes.HasPrefix(head, []byte("PK\x03\x04")) {
			return ""
		}
	case "":
		if picture := http.DetectContentType(head); purpose == ForUserData && strings.HasPrefix(picture, "image/") {
			return picture
		}
	default:
		if bytes.IndexByte(head, 0) >= 0 && !wide(head) {
			return ""
		}
	}
	return t
}

// TypesTaken says which files are taken, for people.
const TypesTaken = "text, Markdown, HTML, CSV, JSON, PDF, DOCX and source code, by the end of the file's name"

// wide reports whether b begins with the mark of UTF-16.
func wide(b []byte) bool {
	return bytes.HasPrefix(b, []byte{0xff, 0xfe}) || bytes.HasPrefix(b, []byte{0xfe, 0xff})
}

// Extractor makes text of files. What is plain text is read here; all else is
// parsed in a child process, which is this program again with ExtractArg: parsers of
// such forms have bugs, and what a file can do to one ends with that process. It has
// no environment and no descriptors but its standard input and output, and as much
// memory and time as it is given.
type Extractor struct {
	// Program is this program, which calls ExtractChild for ExtractArg.
	Program string
	// Memory is how much a child may have, in bytes; default 512 MiB. A file that is
	// parsed may be a quarter of it.
	Memory int64
	// Time is how long a child may take; default 30 s.
	Time time.Duration
	// Text is how many bytes of text a file may have; default 20 MiB.
	Text int64
}

// ExtractArg is the first argument of the child process.
const ExtractArg = "extract-text"

func (x Extractor) withDefaults() Extractor {
	if x.Memory <= 0 {
		x.Memory = 512 << 20
	}
	if x.Time <= 0 {
		x.Time = 30 * time.Second
	}
	if x.Text <= 0 {
		x.Text = 20 << 20
	}
	return x
}

// Extract returns the text of a file. An *ExtractError is for good: the file is not
// one that text can be made of. Anything else is not the file's fault.
func (x Extractor) Extract(ctx context.Context, mediaType string, r io.Reader) (string, error) {
	x = x.withDefaults()
	switch mediaType {
	case typeText, typeMarkdown:
		b, err := readUpTo(r, x.Text)
		if err != nil {
			return "", err
		}
		return decodeText(b)
	case typeHTML, typeCSV, typeJSON, typePDF, typeDOCX:
		return x.apart(ctx, mediaType, r)
	}
	return "", &ExtractError{UnsupportedFile, "Nothing is read in files of the type " + mediaType + "."}
}

// readUpTo reads r, which may have no more than limit.
func readUpTo(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = invalid("The file has more than %d bytes to be read. Split it.", limit)
	}
	return b, err
}

// exitLimits is the exit code of a child that could not limit itself.
const exitLimits = 3

// What a child says before the text, or before why there is none.
const (
	saysText        = 'T'
	saysInvalid     = 'I'
	saysUnsupported = 'U'
)

// apart extracts in a child process.
func (x Extractor) apart(ctx context.Context, mediaType string, r io.Reader) (string, error) {
	within, cancel := context.WithTimeout(ctx, x.Time)
	defer cancel()
	cmd := exec.CommandContext(within, x.Program, ExtractArg, mediaType, fmt.Sprint(x.Memory), fmt.Sprint(int(x.Time/time.Second)+1), fmt.Sprint(x.Text))
	in, out := &remembers{r: r}, &bounded{limit: int(x.Text) + 1, full: cancel}
	cmd.Stdin, cmd.Stdout = in, out
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case in.err != nil:
		return "", in.err
	case out.over:
		return "", invalid("The file has more than %d bytes of text. Split it.", x.Text)
	case within.Err() != nil:
		return "", invalid("The file could not be read within %s.", x.Time)
	}
	if died, ok := errors.AsType[*exec.ExitError](err); ok {
		if s, ok := died.Sys().(syscall.WaitStatus); ok && s.Signaled() && s.Signal() == syscall.SIGXCPU {
			return "", invalid("The file could not be read within %s.", x.Time)
		}
		if died.ExitCode() == exitLimits {
			return "", errors.New("the process that reads files could not limit itself")
		}
		return "", invalid("The file is damaged, or needs more than %d bytes of memory to be read.", x.Memory)
	}
	if err != nil && !errors.Is(err, syscall.EPIPE) { // it need not read all there is
		return "", fmt.Errorf("cannot run the process that reads files: %w", err)
	}
	if len(out.b) == 0 {
		return "", errors.New("the process that reads files said nothing")
	}
	text := string(out.b[1:])
	switch out.b[0] {
	case saysText:
		return text, nil
	case saysUnsupported:
		return "", &ExtractError{UnsupportedFile, text}
	}
	return "", &ExtractError{InvalidFile, text}
}

// remembers is a reader that keeps its error.
type remembers struct {
	r   io.Reader
	err error
}

func (m *remembers) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	if err != nil && err != io.EOF {
		m.err = err
	}
	return n, err
}

// bounded keeps what is written, up to a limit.
type bounded struct {
	b     []byte
	limit int
	over  bool
	full  func()
}

func (w *bounded) Write(b []byte) (int, error) {
	if len(w.b)+len(b) > w.limit {
		w.over = true
		w.full()
		return 0, errors.New("too much text")
	}
	w.b = append(w.b, b...)
	return len(b), nil
}
