package rag

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"bulkhead/provider"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func split(text string, most, overlap int) []string {
	return Split(text, Chunking{Static: true, Tokens: most, Overlap: overlap}, provider.EstimateTokens)
}

func TestSplitGolden(t *testing.T) {
	text := "# Handbook\n\nWelcome to the company.\n\n## Holidays\n\n" + strings.Repeat("Everybody has thirty days of holiday. They are asked for in writing! ", 12) +
		"\n\n## Travel\n\nTrains are booked by the office.\n\n```\n# not a heading\n    indented\n```\n\n### Abroad\n\nAsk first.\n"
	got := strings.Join(split(text, 120, 40), "\n=====\n")
	path := filepath.Join("testdata", "split", "handbook.txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("chunks are not as in %s (%v):\n%s", path, err, got)
	}
}

// TestSplitShapes checks texts that have no sentences, words or spaces.
func TestSplitShapes(t *testing.T) {
	f := func(name, text string, most, overlap, least int) {
		t.Helper()
		chunks := split(text, most, overlap)
		if len(chunks) < least {
			t.Errorf("%s: %d chunks, want at least %d", name, len(chunks), least)
		}
		check(t, name, text, chunks, most)
		if !slices.Equal(chunks, split(text, most, overlap)) {
			t.Errorf("%s: not the same twice", name)
		}
	}
	f("nothing", "", 100, 50, 0)
	f("spaces", " \n\n \t\n", 100, 50, 0)
	f("one word", "word", 100, 50, 1)
	f("a long word", strings.Repeat("x", 5000), 100, 50, 20)
	f("Chinese", strings.Repeat("公司的每一位员工都有三十天的假期。", 100), 100, 50, 10)
	f("Chinese without an end", strings.Repeat("公司的每一位员工都有三十天的假期", 100), 100, 0, 10)
	f("emoji", strings.Repeat("👩‍👩‍👧", 300), 100, 50, 10)
	f("not UTF-8", strings.Repeat("a\xff\xfe b. ", 500), 100, 50, 10)
	f("NUL", strings.Repeat("a\x00b ", 500), 100, 50, 3)
	f("only headings", strings.Repeat("## A heading with some words in it\n\n", 100), 100, 50, 5)
	f("a long heading", "# "+strings.Repeat("word ", 1000)+"\n\ntext", 100, 50, 5)
	f("lines", strings.Repeat("a line of code = with(signs);\n", 300), 100, 50, 10)
	f("one sentence", strings.Repeat("and so on ", 1000), 4096, 2048, 1)
	f("CRLF", strings.Repeat("One.\r\n\r\nTwo.\r\n", 200), 100, 20, 2)
}

// check compares chunks with the text they are of: none is larger than it may be or
// empty, all are UTF-8, and every word of the text is in one, in order.
func check(t *testing.T, name, text string, chunks []string, most int) {
	t.Helper()
	for i, c := range chunks {
		if n := provider.EstimateTokens([]byte(c)); n > int64(most) {
			t.Errorf("%s: chunk %d has %d tokens, more than %d", name, i, n, most)
		}
		if strings.TrimSpace(c) == "" || !utf8.ValidString(c) || strings.ContainsRune(c, 0) {
			t.Errorf("%s: chunk %d is %.40q", name, i, c)
		}
	}
	whole := strings.Join(chunks, "\n")
	at := 0
	for _, word := range strings.Fields(strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "")) {
		for _, r := range word { // a word may be cut, and what is between repeated
			next := strings.IndexRune(whole[at:], r)
			if next < 0 {
				t.Fatalf("%s: %q is in no chunk", name, fmt.Sprintf("%.40s", word))
			}
			at += next
		}
	}
}

// TestSplitOverlap checks that what was cut off for its size begins with the end of
// the chunk before.
func TestSplitOverlap(t *testing.T) {
	var b strings.Builder
	for i := range 200 {
		fmt.Fprintf(&b, "Sentence number %d is here. ", i)
	}
	chunks := split(b.String(), 200, 60)
	if len(chunks) < 5 {
		t.Fatalf("%d chunks", len(chunks))
	}
	for i := 1; i < len(chunks); i++ {
		first, _, _ := strings.Cut(chunks[i], ". ")
		if !strings.Contains(chunks[i-1], first+".") {
			t.Errorf("chunk %d does not begin with the end of the one before: %q", i, first)
		}
	}
	for i, c := range split(b.String(), 200, 0)[1:] {
		first, _, _ := strings.Cut(c, ". ")
		if strings.Contains(chunks[i], first+". ") && strings.Count(b.String(), first+".") != 1 {
			t.Errorf("chunk %d repeats %q", i, first)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("# A\n\nb. c! d?\n\n```\n# e\n```\n", 100, 50)
	f.Add("公司。假期\xff\x00 "+strings.Repeat("x", 600), 120, 0)
	f.Add(strings.Repeat("## h\n", 50), 100, 50)
	f.Fuzz(func(t *testing.T, text string, most, overlap int) {
		c := Chunking{Tokens: most, Overlap: overlap}
		if c.Check("chunking_strategy") != nil || len(text) > 20_000 {
			return
		}
		check(t, "fuzz", text, Split(text, c, provider.EstimateTokens), most)
	})
}
