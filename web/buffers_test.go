package web

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"bulkhead/tenant"
)

// What was in a buffer is gone before another call has it, and a large body's
// memory is not kept.
func TestBuffersAreCleared(t *testing.T) {
	b := new(buffers)
	body := append(b.forBody(100), "what one company asked"...)
	answer := append(b.forAnswer(100), "what it was told"...)
	if &body[0] != &b.body[:1][0] || &answer[0] != &b.answer[:1][0] {
		t.Fatal("the memory is not kept")
	}
	upstream := append(b.forUpstream(100), "what was made of it"...)
	if b.upstream != nil {
		t.Fatal("it is kept while it may be sent")
	}
	b.sent(upstream)
	b.attempt.entry.UserID = "whom it was for"
	b.giveBack()
	if b.attempt.entry.UserID != "" {
		t.Error("the attempt is left")
	}
	for _, kept := range [][]byte{body, answer, upstream} {
		if !bytes.Equal(kept, make([]byte, len(kept))) {
			t.Errorf("%q is left", kept)
		}
	}
	if got := b.forUpstream(100); &got[:1][0] != &upstream[0] {
		t.Error("the memory that was given back is not used")
	}
	b = new(buffers)
	b.sent(make([]byte, 0, keptBuffer+1))
	if b.sent(nil); b.upstream != nil {
		t.Error("a large body that was sent is kept")
	}
	if got := b.forBody(keptBuffer + 1); cap(got) != keptBuffer+1 || b.body != nil {
		t.Errorf("%d bytes of a large body are kept", cap(b.body))
	}
}

// Calls of many companies at once, of sizes around what is kept: each gets its
// own answer, and the provider its own body.
func TestBuffersOfManyCompanies(t *testing.T) {
	l := newLab(t, labOptions{})
	var wg sync.WaitGroup
	for i := range 8 {
		key, _ := l.company(fmt.Sprint("company ", i), tenant.KeyLive, nil)
		wg.Go(func() {
			for n := range 30 {
				mark := fmt.Sprintf("company-%d-call-%d", i, n)
				fill := strings.Repeat(mark+" ", 1+n*60) // up to some 30 KB
				got := l.do("POST", key, "/v1/chat/completions", fmt.Sprintf(`{"model":"sandbox/echo","messages":[{"role":"user","content":%q}]}`, fill))
				if got.status != 200 || !strings.Contains(got.body, strings.TrimSpace(fill)) {
					t.Errorf("%s: status %d, %.200s", mark, got.status, got.body)
				}
			}
		})
	}
	wg.Wait()
}
