package provider

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"bulkhead/fault"
)

const canary = "sk-canary-0123456789abcdef"

// hex forms are looked for too: %x of a string field would print those.
func leaks(s string) bool {
	low := strings.ToLower(s)
	return strings.Contains(low, canary) || strings.Contains(low, fmt.Sprintf("%x", canary)) || strings.Contains(low, fmt.Sprintf("%x", canary[:8])) || strings.Contains(low, "canary")
}

func TestSecretNeverPrints(t *testing.T) {
	s := NewSecret(canary)
	type hidden struct{ s Secret } // fmt cannot call methods here
	type holder struct {
		S Secret
		P *Secret
		L []Secret
		M map[string]Secret
		K map[Secret]int
	}
	cred := Credential{ID: "cred_1", Secret: s}
	values := []any{
		s, &s, hidden{s}, &hidden{s}, []hidden{{s}}, map[string]hidden{"a": {s}}, cred, &cred, []Credential{cred},
		holder{s, &s, []Secret{s}, map[string]Secret{"a": s}, map[Secret]int{s: 1}},
		errors.Join(fmt.Errorf("cannot use %v: %w", cred, fault.New(fault.Internal, "%v %s", s, s))),
	}
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%10.3v", "%p", "%T", "%o", "%b", "%c", "%U", "%e", "%w"}
	for _, v := range values {
		for _, verb := range verbs {
			if got := fmt.Sprintf(verb, v); leaks(got) {
				t.Errorf("%s of %T: %s", verb, v, got)
			}
		}
		if got := fmt.Sprint(v) + fmt.Sprintln(v); leaks(got) {
			t.Errorf("Print of %T: %s", v, got)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		if leaks(log.String()) {
			t.Errorf("slog of %T: %s", v, &log)
		}
		if b, _ := json.Marshal(v); leaks(string(b)) {
			t.Errorf("json of %T: %s", v, b)
		}
	}
	if b, _ := xml.Marshal(s); leaks(string(b)) {
		t.Errorf("xml: %s", b)
	}
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f(fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s), "[secret] [secret] [secret] [secret] [secret]")
	b, _ := json.Marshal(cred.Secret)
	f(string(b), `"[secret]"`)
	y, _ := s.MarshalYAML()
	f(fmt.Sprint(y), masked)
}

func TestSecretValue(t *testing.T) {
	s := NewSecret(canary)
	if s.Reveal() != canary || s.Empty() || s != NewSecret(strings.Clone(canary)) || s == NewSecret("other") {
		t.Error("a secret is not its value")
	}
	var zero Secret
	if !zero.Empty() || zero.Reveal() != "" || NewSecret("") != zero || fmt.Sprint(zero) != masked {
		t.Error("the zero secret")
	}
}
