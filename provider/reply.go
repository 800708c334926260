package provider

import (
	"bytes"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
)

const (
	maxErrorBody = 64 << 10        // bytes read of an answer that is not 2xx
	maxErrorText = 2 << 10         // bytes of a vendor's error message that are shown
	maxErrorWord = 128             // bytes of its code, type and param
	maxErrorWait = 5 * time.Second // for the body of an error, so that the next target is not kept waiting
	maxRetry     = 24 * time.Hour  // longest wait believed
)

// hurried is the body of an answer whose end can be brought closer.
type hurried interface {
	io.Reader
	hurry(time.Duration)
}

// check returns nil for an answer that can be used, else what it means.
func check(h *head, b hurried, secret Secret) error {
	if h.status >= 200 && h.status <= 299 {
		if h.encoding == "" || strings.EqualFold(h.encoding, "identity") {
			return nil
		}
		e := fault.New(fault.Upstream, "the provider answered in an encoding that was not asked for")
		e.Status, e.Retriable = http.StatusBadGateway, true
		return e
	}
	if h.status < 400 {
		e := fault.New(fault.Upstream, "the provider answered with a redirect or another status that cannot be used: %d", h.status)
		e.Status = http.StatusBadGateway
		return e
	}
	b.hurry(maxErrorWait)
	text, err := io.ReadAll(io.LimitReader(b, maxErrorBody))
	if err != nil && !isFault(err) {
		return err // the caller gave up
	}
	// A body that was cut still comes with a status, which says more.
	return vendorError(h, text, secret)
}

func isFault(err error) bool {
	_, ok := err.(*fault.Error)
	return ok
}

// vendorError turns an answer of 4xx or 5xx into the error the client sees. The
// text is the vendor's own: the credential is the company's, so is the trouble.
func vendorError(h *head, body []byte, secret Secret) *fault.Error {
	if key := secret.Reveal(); key != "" {
		// Before anything cuts the text: half a key is not found any more.
		body = bytes.ReplaceAll(body, []byte(key), []byte(masked))
	}
	v, status := openai.ParseError(body), h.status
	e := &fault.Error{
		Kind:       fault.Upstream,
		Status:     status,
		Message:    shown(v.Message, secret, maxErrorText),
		Type:       shown(v.Type, secret, maxErrorWord),
		Param:      shown(v.Param, secret, maxErrorWord),
		Code:       shown(v.Code, secret, maxErrorWord),
		RetryAfter: retryAfter(h.retryAfterMs, h.retryAfter, time.Now()),
		NoRetry:    h.shouldRetry == "false",
		Retriable:  status == 408 || status == 429 || status >= 500,
	}
	if e.Message == "" {
		e.Message = "the provider answered with status " + strconv.Itoa(status)
	}
	switch status {
	case http.StatusUnauthorized:
		// Without the vendor's text: it usually repeats parts of the key.
		e.Message = "the provider refused your company's credential; set a valid one for this provider"
	case http.StatusForbidden:
		e.Message = "the provider refused your company's credential for this request: " + e.Message
	default:
		return e
	}
	e.Code, e.NoRetry = "provider_authentication_failed", true
	return e
}

// shown returns s fit to be shown: without the secret (which JSON may have
// escaped in the body), valid UTF-8, at most max bytes.
func shown(s string, secret Secret, max int) string {
	s = secret.Mask(s)
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= max {
		return s
	}
	return cutRunes(s, max)
}

// retryAfter reads how long to wait: retry-after-ms (milliseconds, OpenAI's),
// else retry-after (seconds, or an HTTP date; RFC 9110 section 10.2.3). Vendors
// send fractions in both. 0 is "not said" and anything that makes no sense.
func retryAfter(ms, s string, now time.Time) time.Duration {
	if d, ok := duration(ms, time.Millisecond); ok {
		return d
	}
	if d, ok := duration(s, time.Second); ok {
		return d
	}
	if t, err := http.ParseTime(s); err == nil {
		return min(max(t.Sub(now), 0), maxRetry)
	}
	return 0
}

func duration(s string, unit time.Duration) (time.Duration, bool) {
	if s == "" || len(s) > 32 {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 {
		return 0, false
	}
	if f >= float64(maxRetry/unit) {
		return maxRetry, true
	}
	return time.Duration(f * float64(unit)), true
}
