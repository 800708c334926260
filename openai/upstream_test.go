package openai

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each file of testdata/upstream is a request and what goes upstream:
//
//	endpoint and form, as key=value
//	the client's body
//	--
//	the body for the upstream
func TestAppendUpstream(t *testing.T) {
	files, err := filepath.Glob("testdata/upstream/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { golden(t, file) })
	}
}

func golden(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), "\n")
	body, want, _ := strings.Cut(rest, "\n--\n")
	want = strings.TrimSuffix(want, "\n")
	e, form := parseForm(t, head)
	r := mustScan(t, e, body)
	got := string(r.AppendUpstream([]byte("before"), form))
	got, ok := strings.CutPrefix(got, "before")
	if !ok {
		t.Fatal("dst was not appended to")
	}
	if *update {
		if err := os.WriteFile(file, []byte(head+"\n"+body+"\n--\n"+got+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := new(Request).Scan(e, []byte(got)); err != nil {
		t.Errorf("the result does not scan: %v", err)
	}
}

func parseForm(t *testing.T, head string) (e Endpoint, f UpstreamForm) {
	t.Helper()
	for _, word := range strings.Fields(head) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "chat":
			e = Chat
		case "completions":
			e = Completions
		case "embeddings":
			e = Embeddings
		case "moderations":
			e = Moderations
		case "model":
			f.Model = value
		case "usage":
			f.IncludeUsage = true
		case "maxtokensonly":
			f.MaxTokensOnly = true
		case "encoding":
			f.EncodingFormat = value
		case "max":
			f.MaxOutput = 100
		case "maxfield":
			f.MaxOutputField = value
		default:
			t.Fatalf("unknown word %q", word)
		}
	}
	return e, f
}

func TestSplice(t *testing.T) {
	f := func(want string, edits ...Edit) {
		t.Helper()
		if got := string(Splice([]byte("<"), []byte("0123456789"), edits)); got != "<"+want {
			t.Errorf("got %s, want <%s", got, want)
		}
	}
	f("0123456789")
	f("a0123456789b", Edit{Span{0, 0}, []byte("a")}, Edit{Span{10, 10}, []byte("b")})
	f("01ab56789", Edit{Span{2, 5}, []byte("a")}, Edit{Span{5, 5}, []byte("b")})
	f("ab0123456789", Edit{Span{0, 0}, []byte("a")}, Edit{Span{0, 0}, []byte("b")})
	f("", Edit{Span{0, 10}, nil})

	bad := func(edits ...Edit) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("no panic for %v", edits)
			}
		}()
		Splice(nil, []byte("0123456789"), edits)
	}
	bad(Edit{At: Span{5, 6}}, Edit{At: Span{4, 4}})
	bad(Edit{At: Span{2, 6}}, Edit{At: Span{5, 7}})
	bad(Edit{At: Span{5, 4}})
	bad(Edit{At: Span{5, 11}})
	bad(Edit{At: Span{-1, 2}})
}
