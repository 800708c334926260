package rag

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"bulkhead/rag/ragtest"
)

// TestMain is the child process too, as the gateway's main is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ExtractArg {
		if len(os.Args) > 2 && os.Args[2] == "test/environment" {
			os.Exit(sayEnvironment())
		}
		os.Exit(ExtractChild(os.Args[2:]))
	}
	if err := KeepDescriptors(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func extractor(t testing.TB) Extractor {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Extractor{Program: self}
}

func TestExtract(t *testing.T) {
	x := extractor(t)
	f := func(mediaType, file, want string) {
		t.Helper()
		got, err := x.Extract(t.Context(), mediaType, strings.NewReader(file))
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", mediaType, got, err, want)
		}
	}
	f(typeText, "\xef\xbb\xbfplain", "plain")
	f(typeText, "\xff\xfeh\x00\xe9\x00", "hé")
	f(typeMarkdown, "# Title\n\ntext", "# Title\n\ntext")
	f(typeHTML, `<!doctype html><html><head><title>T</title><style>x{}</style><script>alert("no")</script></head><body><h1>Big  one</h1>`+
		`<p>Some <b>bold</b>
 text &amp; more.</p><ul><li>one</li><li>two</li></ul><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table><pre>  kept
   so</pre></body></html>`,
		"T\n\n# Big one\n\nSome bold text & more.\n\n- one\n\n- two\n\na | b\n\n1 | 2\n\n  kept\n   so\n")
	f(typeCSV, "name;days\nAnna;30\nBert;\n\"C; D\";3\n", "name: Anna\ndays: 30\n\nname: Bert\n\nname: C; D\ndays: 3\n\n")
	f(typeJSON, `{"a": {"b": [1, 2.50]}, "c": "text", "d": null}`, "a.b: 1\na.b: 2.50\nc: text\nd: null\n\n")
	f(typeJSON, "{\"a\":1}\n{\"a\":true}\n", "a: 1\n\na: true\n\n")
	f(typePDF, string(ragtest.PDF("The first page.", "", "The third page.")), "The first page.\n\nThe third page.\n\n")
	f(typeDOCX, string(ragtest.DOCX("# Title", "One & two.")), "# Title\n\nOne & two.\n\n")
	table := `<w:document><w:body><w:p><w:r><w:t>Before.</w:t></w:r></w:p><w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc>` +
		`<w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p><w:p><w:r><w:t>c</w:t></w:r></w:p></w:tc></w:tr></w:tbl></w:body></w:document>`
	f(typeDOCX, string(ragtest.Zip(map[string]string{"word/document.xml": table})), "Before.\n\na | b c\n\n")
}

// TestExtractHostile gives the extractor what is made to break it. Each is told to
// its owner, and ends in time.
func TestExtractHostile(t *testing.T) {
	x := extractor(t)
	x.Memory, x.Time, x.Text = 128<<20, time.Minute, 1<<20
	f := func(name, mediaType string, file []byte, code, want string) {
		t.Helper()
		_, err := x.Extract(t.Context(), mediaType, bytes.NewReader(file))
		why, ok := errors.AsType[*ExtractError](err)
		if !ok || why.Code != code || !strings.Contains(why.Message, want) {
			t.Errorf("%s: %v, want %s %q", name, err, code, want)
		}
	}
	good := ragtest.PDF("text")
	f("an empty PDF", typePDF, nil, InvalidFile, "not a PDF")
	f("half a PDF", typePDF, good[:len(good)/2], InvalidFile, "not a PDF")
	f("a PDF of zeros", typePDF, append([]byte("%PDF-1.4\n"), make([]byte, 100_000)...), InvalidFile, "")
	f("a scanned PDF", typePDF, ragtest.PDF("", ""), UnsupportedFile, "no text layer")
	x.Time = 2 * time.Second // it has no end
	f("a PDF whose pages are its pages", typePDF, bytes.Replace(good, []byte("/Kids [4 0 R]"), []byte("/Kids [2 0 R]"), 1), InvalidFile, "")
	x.Time = time.Minute
	f("a PDF larger than its reader's memory", typePDF, make([]byte, 33<<20), InvalidFile, "") // the race detector's own memory decides how it ends
	if _, err := parse(typePDF, bytes.NewReader(make([]byte, 2<<20)), 1<<20); err == nil || !strings.Contains(err.Error(), "Split it") {
		t.Errorf("a PDF larger than its reader takes: %v", err)
	}

	f("a zip bomb", typeDOCX, ragtest.ZipBomb("word/document.xml", "<w:t>", strings.Repeat("\x00", 1<<20), 140, "</w:t>"), InvalidFile, "")
	f("a zip bomb of XML", typeDOCX, ragtest.ZipBomb("word/document.xml", "<a>", strings.Repeat(" ", 1<<20), 140, "</a>"), InvalidFile, "")
	f("text of a zip bomb", typeDOCX, ragtest.Zip(map[string]string{"word/document.xml": "<t>" + strings.Repeat("a ", 1<<20) + "</t>"}), InvalidFile, "bytes of text")
	f("deep XML", typeDOCX, ragtest.Zip(map[string]string{"word/document.xml": strings.Repeat("<a>", 100_000)}), InvalidFile, "nested deeper")
	f("XML that refers to itself", typeDOCX, ragtest.Zip(map[string]string{"word/document.xml": `<!DOCTYPE a [<!ENTITY b "&b;&b;">]><a>&b;</a>`}), InvalidFile, "not XML")
	f("no document", typeDOCX, ragtest.Zip(map[string]string{"../../etc/passwd": "x"}), InvalidFile, "no document")
	f("no zip", typeDOCX, []byte("PK\x03\x04 and nothing else"), InvalidFile, "not a DOCX")

	f("deep JSON", typeJSON, bytes.Repeat([]byte("["), 1_000_000), InvalidFile, "nested deeper")
	f("half of JSON", typeJSON, []byte(`{"a": [1, 2`), InvalidFile, "not JSON")
	f("text that is no JSON", typeJSON, []byte("hello"), InvalidFile, "not JSON")
	f("an endless tag", typeHTML, append([]byte("<a "), bytes.Repeat([]byte("b"), 2<<20)...), InvalidFile, "does not end")
	f("text that is not UTF-8", typeText, []byte("a\xff\xfeb"), InvalidFile, "not UTF-8")
	f("too much text", typeText, bytes.Repeat([]byte("a"), 2<<20), InvalidFile, "Split it")
	f("a picture", "image/png", []byte("\x89PNG"), UnsupportedFile, "Nothing is read")
	deep, err := x.Extract(t.Context(), typeHTML, strings.NewReader(strings.Repeat("<div>", 200_000)+"text"))
	if err != nil || strings.TrimSpace(deep) != "text" {
		t.Errorf("deep HTML: %.40q, %v", deep, err)
	}

	x.Time = 200 * time.Millisecond
	slow := io.MultiReader(bytes.NewReader(good), blocks{t.Context()})
	_, err = x.Extract(t.Context(), typePDF, slow)
	if why, ok := errors.AsType[*ExtractError](err); !ok || !strings.Contains(why.Message, "within 200ms") {
		t.Errorf("what does not end: %v", err)
	}
}

// blocks is a reader that waits for its context.
type blocks struct{ ctx context.Context }

func (b blocks) Read([]byte) (int, error) {
	select {
	case <-b.ctx.Done():
	case <-time.After(5 * time.Second):
	}
	return 0, io.EOF
}

// TestExtractTriesAgain checks what is not the file's fault.
func TestExtractTriesAgain(t *testing.T) {
	broken := errors.New("the disk is away")
	f := func(what string, x Extractor, ctx context.Context, mediaType string, r io.Reader) {
		t.Helper()
		_, err := x.Extract(ctx, mediaType, r)
		if _, forGood := errors.AsType[*ExtractError](err); err == nil || forGood {
			t.Errorf("%s: %v", what, err)
		}
	}
	x := extractor(t)
	pdf := ragtest.PDF("text")
	f("a file that cannot be read", x, t.Context(), typePDF, io.MultiReader(bytes.NewReader(pdf[:100]), iotest.ErrReader(broken)))
	f("text that cannot be read", x, t.Context(), typeText, iotest.ErrReader(broken))
	f("no program", Extractor{Program: "/nowhere"}, t.Context(), typePDF, bytes.NewReader(pdf))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	f("a job that was ended", x, over, typePDF, bytes.NewReader(pdf))
}

// sayEnvironment writes what the child process has, as text of a file.
func sayEnvironment() int {
	if err := limitProcess(64<<20, 5); err != nil {
		return 3
	}
	out := "T" + strings.Join(os.Environ(), "\n") + "|"
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 4
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/proc/") && !strings.HasPrefix(to, "/sys/fs/cgroup/") {
			out += fd.Name() + "=" + strings.Split(to, ":")[0] + " "
		}
	}
	if f, err := os.Create("/tmp/bulkhead-extract-test"); err == nil {
		if _, err := f.Write([]byte("x")); err == nil {
			out += "wrote a file "
		}
		f.Close()
	}
	os.Remove("/tmp/bulkhead-extract-test")
	os.Stdout.WriteString(out)
	return 0
}

// TestExtractEnvironment looks at what the child process has.
func TestExtractEnvironment(t *testing.T) {
	t.Setenv("BULKHEAD_MASTER_KEY", "a secret")
	leak, err := os.Open(os.Args[0]) // an open descriptor
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	got, err := extractor(t).withDefaults().apart(t.Context(), "test/environment", strings.NewReader(""))
	if err != nil || got != "|0=pipe 1=pipe 2=/dev/null " {
		t.Errorf("the child process has %q, %v", got, err)
	}
}

func TestTypeOf(t *testing.T) {
	f := func(purpose, name, head, want string) {
		t.Helper()
		if got := TypeOf(purpose, name, []byte(head)); got != want {
			t.Errorf("%s %q: %q, want %q", name, head, got, want)
		}
	}
	f(ForAssistants, "a.pdf", "%PDF-1.7", typePDF)
	f(ForAssistants, "a.PDF", "junk\n%PDF-1.7", typePDF)
	f(ForAssistants, "a.pdf", "MZ", "")
	f(ForAssistants, "a.docx", "PK\x03\x04", typeDOCX)
	f(ForAssistants, "a.docx", "%PDF-", "")
	f(ForAssistants, "a.md", "# x", typeMarkdown)
	f(ForAssistants, "a.txt", "a\x00b", "")
	f(ForAssistants, "a.txt", "\xff\xfea\x00", typeText)
	f(ForAssistants, "a.exe", "MZ", "")
	f(ForAssistants, "a", "text", "")
	f(ForAssistants, "a.png", "\x89PNG\r\n\x1a\n", "")
	f(ForUserData, "a.png", "\x89PNG\r\n\x1a\n", "image/png")
	f(ForUserData, "a.png", "<svg/>", "")
}

// FuzzParse parses anything as anything, without the process around it.
func FuzzParse(f *testing.F) {
	types := []string{typePDF, typeDOCX, typeHTML, typeCSV, typeJSON}
	f.Add(uint8(0), ragtest.PDF("text"))
	f.Add(uint8(1), ragtest.DOCX("# Title", "text"))
	f.Add(uint8(2), []byte("<h1>a</h1><table><td>b<script>c"))
	f.Add(uint8(3), []byte("a,b\n1,\"2\n"))
	f.Add(uint8(4), []byte(`{"a":[1,{"b":null}]}`))
	f.Fuzz(func(t *testing.T, which uint8, file []byte) {
		if len(file) > 64<<10 {
			return
		}
		mediaType := types[int(which)%len(types)]
		text, err := parse(mediaType, bytes.NewReader(file), 1<<20)
		if err != nil {
			if _, forGood := errors.AsType[*ExtractError](err); !forGood || text != "" {
				t.Errorf("%s: %q, %v", mediaType, text, err)
			}
			return
		}
		if !strings.Contains(mediaType, "pdf") && len(text) > 300*len(file)+1000 {
			t.Errorf("%s: %d bytes became %d", mediaType, len(file), len(text))
		}
	})
}
