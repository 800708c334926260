package ledger

import (
	"regexp"
	"testing"
	"testing/synctest"
	"time"
)

func TestNewAttemptID(t *testing.T) {
	form := regexp.MustCompile(`^att_[0-9a-v]{29}$`)
	seen := map[string]bool{}
	for range 10_000 {
		id := NewAttemptID()
		if !form.MatchString(id) {
			t.Fatalf("%q", id)
		}
		if seen[id] {
			t.Fatalf("%q came twice", id)
		}
		seen[id] = true
	}
}

func TestAttemptIDsSortByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last := NewAttemptID()
		for _, d := range []time.Duration{time.Microsecond, time.Millisecond, time.Second, time.Hour, 24 * 400 * time.Hour} {
			time.Sleep(d) // the bubble's clock jumps
			id := NewAttemptID()
			if id <= last {
				t.Errorf("after %s: %q does not come after %q", d, id, last)
			}
			last = id
		}
	})
}

func BenchmarkNewAttemptID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		NewAttemptID()
	}
}
