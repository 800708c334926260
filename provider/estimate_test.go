package provider

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// testdata/tokens.txt holds texts with the tokens that o200k_base and
// cl100k_base make of them. The estimate must be at least as many as either, and
// not too many more.
func TestEstimateTokens(t *testing.T) {
	file, err := os.Open("testdata/tokens.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		// name, tokens of o200k_base, of cl100k_base, times, quoted text
		f := strings.SplitN(lines.Text(), "\t", 5)
		text, err := strconv.Unquote(f[4])
		if err != nil {
			t.Fatalf("%s: %v", f[0], err)
		}
		times, _ := strconv.Atoi(f[3])
		text = strings.Repeat(text, times)
		o200k, _ := strconv.ParseInt(f[1], 10, 64)
		cl100k, _ := strconv.ParseInt(f[2], 10, 64)
		truth := max(o200k, cl100k)
		n++
		got := EstimateTokens([]byte(text))
		if got < truth*97/100 || got > truth*22/10 {
			t.Errorf("%s: %d tokens, estimated %d", f[0], truth, got)
		}
		if hard := int64(len(text)); truth > hard {
			t.Errorf("%s: %d tokens in %d bytes", f[0], truth, hard)
		}
	}
	if n < 15 {
		t.Errorf("%d texts", n)
	}
	if EstimateTokens(nil) != 0 || EstimateTokens([]byte("a")) != 1 {
		t.Error("of nothing, or of a letter")
	}
}

func FuzzEstimateTokens(f *testing.F) {
	f.Add([]byte("Hello, wörld 123\n\n"))
	f.Add([]byte{0xff, 0xfe, 0, 0xf0, 0x9f})
	f.Fuzz(func(t *testing.T, text []byte) {
		n := EstimateTokens(text)
		if n < 0 || n > 4*int64(len(text)) || n == 0 && len(text) > 0 && utf8.Valid(text) {
			t.Fatalf("%d of %q", n, text)
		}
		if more := EstimateTokens(append(text[:len(text):len(text)], " x"...)); more < n {
			t.Fatalf("%d of %q, %d of more", n, text, more)
		}
	})
}

func BenchmarkEstimateTokens(b *testing.B) {
	text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog. ", 100))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		EstimateTokens(text)
	}
}
