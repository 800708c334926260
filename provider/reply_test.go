package provider

import (
	"strings"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	f := func(ms, s string, want time.Duration) {
		t.Helper()
		if got := retryAfter(ms, s, now); got != want {
			t.Errorf("%q %q: %s, want %s", ms, s, got, want)
		}
	}
	f("", "", 0)
	f("", "7", 7*time.Second)
	f("", "0.25", 250*time.Millisecond)
	f("1500", "7", 1500*time.Millisecond) // the finer one counts
	f("12.5", "", 12500*time.Microsecond)
	f("bad", "7", 7*time.Second)
	f("0", "7", 0)
	f("", "-1", 0)
	f("", "NaN", 0)
	f("", "Inf", maxRetry)
	f("", "1e300", maxRetry)
	f("", "Sun, 22 Nov 2026 12:00:30 GMT", 30*time.Second)
	f("", "Sun, 22 Nov 2026 11:00:00 GMT", 0) // in the past
	f("", "Sun, 22 Nov 2099 12:00:30 GMT", maxRetry)
	f("", "soon", 0)
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "1", "0.5", "-1", "1e400", "NaN", "Sun, 22 Nov 2026 12:00:30 GMT", "0x1p3"} {
		f.Add(s, s)
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, ms, s string) {
		d := retryAfter(ms, s, now)
		if d < 0 || d > maxRetry {
			t.Fatalf("%q %q: %s", ms, s, d)
		}
	})
}

// FuzzVendorError: whatever a vendor says, its text is bounded, valid and
// without the secret.
func FuzzVendorError(f *testing.F) {
	f.Add(400, []byte(`{"error":{"message":"`+canary+`"}}`))
	f.Add(401, []byte(`{"error":"`+canary+`"}`))
	f.Add(500, []byte(`[{"error":{"code":500,"message":"x","status":"UNAVAILABLE"}}]`))
	f.Add(403, []byte("<html>"))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := vendorError(&head{status: status}, body, NewSecret(canary))
		if strings.Contains(e.Message+"|"+e.Code+"|"+e.Type+"|"+e.Param, canary) {
			t.Fatalf("%q: %+v", body, e)
		}
		if e.Message == "" || len(e.Message) > maxErrorText+128 || len(e.Code) > maxErrorWord || strings.ToValidUTF8(e.Message, "") != e.Message {
			t.Fatalf("%q: %+v", body, e)
		}
	})
}
