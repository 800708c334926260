//go:build !race

package web

import (
	"testing"
)

// A warm call with a token makes no allocations more than one with a key, and one
// with a key that was given out for it neither.
func TestTokenAllocations(t *testing.T) {
	l := newLab(t, labOptions{sandbox: &stub{
		plain: `{"choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}`,
	}})
	l.entries.drop = true
	_, s, token := l.trusting(nil)
	for what, key := range map[string]string{"a token": token, "a key for one": l.exchange(s, token)} {
		n := l.allocations(key, chatBody("sandbox/echo", ""), "}")
		t.Logf("a plain call with %s: %.1f allocations", what, n)
		if n > allocsPlain {
			t.Errorf("a plain call with %s: %.1f allocations, at most %d", what, n, allocsPlain)
		}
	}
}
