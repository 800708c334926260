package ledger

import (
	"testing"
	"time"
)

func TestAttemptTime(t *testing.T) {
	before := time.Now().Add(-time.Microsecond)
	if at := AttemptTime(NewAttemptID()); at.Before(before) || at.After(time.Now()) {
		t.Errorf("made now, and its time is %s", at)
	}
	at := time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)
	if got := AttemptTime(AttemptIDAt(at)); !got.Equal(at) {
		t.Errorf("got %s", got)
	}
	for _, id := range []string{"", "att_", "att_same", "att_zzzzzzzzzzzzzzzzzzzzzzzzzzzzz", AttemptIDAt(at)[1:], AttemptIDAt(at) + "00"} {
		if !AttemptTime(id).IsZero() {
			t.Errorf("%q has a time", id)
		}
	}
}
