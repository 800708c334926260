package provider

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestCountTokens(t *testing.T) {
	file, err := os.Open("testdata/tokens.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		f := strings.SplitN(lines.Text(), "\t", 5)
		text, err := strconv.Unquote(f[4])
		if err != nil {
			t.Fatal(err)
		}
		times, _ := strconv.Atoi(f[3])
		text = strings.Repeat(text, times)
		for i, model := range []string{"gpt-4o", "gpt-4"} {
			want, _ := strconv.ParseInt(f[1+i], 10, 64)
			if n, ok := CountTokens(model, text); !ok || n != want {
				t.Errorf("%s by %s: %d, want %d", f[0], model, n, want)
			}
		}
		// A text of many pieces has as many tokens as its parts.
		long := strings.Repeat(text, 40_000/len(text))
		one, _ := CountTokens("gpt-4o", text)
		many, _ := CountTokens("gpt-4o", long)
		if want := one * int64(40_000/len(text)); many < want*96/100 || many > want*104/100 {
			t.Errorf("%s: %d tokens, %d of the parts", f[0], many, want)
		}
	}
}

func TestCounts(t *testing.T) {
	f := func(model string, want bool) {
		t.Helper()
		if Counts(model) != want {
			t.Errorf("%s: %t", model, !want)
		}
	}
	for _, model := range []string{"gpt-4o", "gpt-4o-mini-2024-07-18", "chatgpt-4o-latest", "gpt-4.1-nano", "gpt-5", "gpt-5-mini", "o3", "o3-mini", "o1-2024-12-17",
		"o4-mini", "gpt-4-turbo", "gpt-4", "gpt-3.5-turbo-0125", "openai/gpt-oss-120b", "text-embedding-3-small"} {
		f(model, true)
	}
	for _, model := range []string{"", "gpt-5.6", "gpt-6-sol", "o30", "claude-opus-5", "gemini-2.5-pro", "llama-3.3-70b", "gpt-4x"} {
		f(model, false)
		if _, ok := CountTokens(model, "x"); ok {
			t.Errorf("%s is counted", model)
		}
	}
	if n, ok := CountTokens("gpt-4o", ""); n != 0 || !ok {
		t.Errorf("nothing is %d tokens", n)
	}
}

// No text takes time out of proportion: mixed white space is the worst known.
func TestCountTokensHostile(t *testing.T) {
	var b strings.Builder
	for i := range 64 << 10 {
		b.WriteByte(" \n\t\r"[i*i%7%4])
	}
	start := time.Now()
	for _, text := range []string{b.String(), strings.Repeat("a", 64<<10), strings.Repeat("\xff", 64<<10), strings.Repeat(" ", 64<<10), strings.Repeat("<|endoftext|>", 5000)} {
		if n, ok := CountTokens("gpt-4o", text); !ok || n == 0 || n > int64(len(text)) {
			t.Errorf("%.10q: %d, %t", text, n, ok)
		}
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("it took %s", d)
	}
}
