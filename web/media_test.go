package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"testing"

	"bulkhead/ledger"
	"bulkhead/tenant"
	"bulkhead/test/upstream"
)

// form makes a form of names and values; a name with "@" behind it is a file.
func form(t testing.TB, parts ...string) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i < len(parts); i += 2 {
		var to io.Writer
		var err error
		if name, file := strings.CutSuffix(parts[i], "@"); file {
			to, err = w.CreateFormFile(name, "sound.mp3")
		} else {
			to, err = w.CreateFormField(name)
		}
		must(t, err)
		_, err = io.WriteString(to, parts[i+1])
		must(t, err)
	}
	must(t, w.Close())
	return w.FormDataContentType(), b.String()
}

func (l *lab) form(key, path string, parts ...string) answerGot {
	l.t.Helper()
	contentType, body := form(l.t, parts...)
	return l.do("POST", key, path, body, "Content-Type", contentType)
}

// last returns the newest entry of the ledger.
func (l *lab) lastBooked(n int) ledger.Entry {
	l.t.Helper()
	l.settle()
	all := l.booked()
	if len(all) != n {
		l.t.Fatalf("%d entries, not %d: %+v", len(all), n, all)
	}
	return all[n-1]
}

// TestImages: a picture is asked for in JSON and comes back as the provider sent
// it, billed by its tokens or by piece.
func TestImages(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	a := l.do("POST", key, "/v1/images/generations", `{"model":"openai/gpt-image-1","prompt":"a cat","n":2,"odd":1e3}`)
	if a.status != 200 || strings.Count(a.body, "cGljdHVyZQ==") != 2 || a.header.Get("X-Bulkhead-Cost-Usd") == "" {
		t.Fatalf("%s", a)
	}
	sent, _ := l.up.Last()
	if got := string(sent.Body); got != `{"model":"gpt-image-1","prompt":"a cat","n":2,"odd":1e3}` {
		t.Errorf("sent %s", got)
	}
	// 10 tokens of text at 5, 200 of images at 40 USD per million.
	e := l.lastBooked(1)
	if e.Kind != "images" || e.Rank != ledger.Final || e.CostNano != 10*5_000+200*40_000 || e.Usage.Output != 200 {
		t.Errorf("%+v", e)
	}
	if a := l.do("POST", key, "/v1/images/generations", `{"model":"openai/gpt-image-1"}`); a.status != 400 || a.envelope(t).Param != "prompt" {
		t.Errorf("%s", a)
	}
	if a := l.do("POST", key, "/v1/images/generations", `{"model":"openai/gpt-image-1","prompt":"x","n":11}`); a.status != 400 || a.envelope(t).Param != "n" {
		t.Errorf("%s", a)
	}
	if n := len(l.up.Requests()); n != 1 {
		t.Errorf("%d requests reached the provider", n)
	}
}

// A stream of images has events with names, its usage, and no [DONE].
func TestImageStream(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	a := l.do("POST", key, "/v1/images/generations", `{"model":"openai/gpt-image-1","prompt":"a cat","stream":true,"partial_images":1}`)
	if a.status != 200 || a.err != nil || !strings.HasPrefix(a.header.Get("Content-Type"), "text/event-stream") ||
		!strings.Contains(a.body, "event: image_generation.partial_image\n") || !strings.Contains(a.body, `"usage":{`) || strings.Contains(a.body, "[DONE]") {
		t.Fatalf("%s", a)
	}
	if e := l.lastBooked(1); e.CostNano != 10*5_000+100*40_000 || e.Rank != ledger.Final || e.Outcome != ledger.Answered {
		t.Errorf("%+v", e)
	}
}

// TestTranscription: a form of 50 MB goes through, its model behind the file, and
// is billed by the second. It is never whole in memory.
func TestTranscription(t *testing.T) {
	l := newLab(t, labOptions{})
	key, s := l.company("acme", tenant.KeyLive, routeTo("gone/whisper-1", "openai/whisper-1"))
	sound := strings.Repeat("\x00\x01\r\n--\xff", 50<<20/7)
	a := l.form(key, "/v1/audio/transcriptions", "file@", sound, "language", "de", "model", "best")
	if a.status != 200 || !strings.Contains(a.body, `"seconds":3`) || a.header.Get("X-Bulkhead-Attempts") != "2" {
		t.Fatalf("%s", a)
	}
	sent, _ := l.up.Last()
	if sent.Model != "whisper-1" || !bytes.Contains(sent.Body, []byte(sound)) {
		t.Errorf("the provider got another file: model %q, %x", sent.Model, sha256.Sum256(sent.Body))
	}
	_, want := form(t, "file@", sound, "language", "de", "model", "whisper-1")
	if len(sent.Body) != len(want) { // the boundary is another
		t.Errorf("%d bytes were sent, not %d", len(sent.Body), len(want))
	}
	e := l.lastBooked(2)
	if e.Kind != "transcriptions" || e.CostNano != 3*100_000 || e.Rank != ledger.Final || e.Usage.Seconds != 3 {
		t.Errorf("%+v", e)
	}
	// Nothing is left, and nothing had a name while it was there.
	entries, err := os.ReadDir(l.g.settings.Load().FormDir)
	must(t, err)
	if len(entries) != 0 || l.g.load.disk != 0 || l.g.load.companies[s.ID().String()] != nil {
		t.Errorf("left: %v, %d bytes", entries, l.g.load.disk)
	}
}

// What is heard may come as text, and as a stream; a provider that says nothing of
// the length is booked at what is likely.
func TestTranscriptionForms(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	sound := strings.Repeat("x", 10_000)
	a := l.form(key, "/v1/audio/transcriptions", "model", "openai/whisper-1", "file@", sound, "response_format", "srt")
	if a.status != 200 || a.body != "1\n00:00:00,000 --> 00:00:03,000\n10000 bytes\n" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s", a)
	}
	if e := l.lastBooked(1); e.Rank != ledger.Estimate || e.Marks&ledger.NoUsage == 0 || e.CostNano != 10*100_000 || e.LowNano != 0 || e.HighNano < e.CostNano {
		t.Errorf("%+v", e)
	}
	a = l.form(key, "/v1/audio/transcriptions", "model", "openai/gpt-4o-transcribe", "file@", sound, "stream", "true")
	if a.status != 200 || !strings.Contains(a.body, `"delta":"10000 bytes"`) || strings.Contains(a.body, "[DONE]") {
		t.Errorf("%s", a)
	}
	// whisper-1 ignores "stream", as OpenAI says.
	a = l.form(key, "/v1/audio/transcriptions", "model", "openai/whisper-1", "file@", sound, "stream", "true")
	if a.status != 200 || !strings.Contains(a.body, `"text":"10000 bytes"`) {
		t.Errorf("%s", a)
	}
	if e := l.lastBooked(3); e.Rank != ledger.Final || e.CostNano != 3*100_000 {
		t.Errorf("%+v", e)
	}
}

// TestSpeech: sound is relayed byte by byte, with its type, and billed by what was
// spoken.
func TestSpeech(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	a := l.do("POST", key, "/v1/audio/speech", `{"model":"openai/tts-1","input":"Grüezi mitenand","voice":"alloy"}`)
	if a.status != 200 || a.body != string(upstream.Spoken()) || a.header.Get("Content-Type") != "audio/mpeg" || a.header.Get("X-Request-Id") == "" {
		t.Fatalf("%d %v, %d bytes", a.status, a.header, len(a.body))
	}
	if e := l.lastBooked(1); e.Kind != "speech" || e.Rank != ledger.Final || e.CostNano != 15*15_000 || e.Usage.Characters != 15 {
		t.Errorf("%+v", e)
	}
}

// Sound that breaks off is no whole body for the client, and a client that leaves
// ends the provider's work.
func TestSpeechBroken(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	l.up.Handle("cut", func(c *upstream.Call) {
		c.W.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = c.W.Write(make([]byte, 1000))
		_ = http.NewResponseController(c.W).Flush()
		panic(http.ErrAbortHandler)
	})
	a := l.do("POST", key, "/v1/audio/speech", `{"model":"up/cut","input":"x","voice":"alloy"}`)
	if a.status == 200 && a.err == nil {
		t.Errorf("cut, and whole for the client: %s", a)
	}
	if got := a.header.Get("Content-Type"); a.status == 200 && got != "application/octet-stream" {
		t.Errorf("a page for browsers came through as %s", got)
	}
	if e := l.lastBooked(1); e.Outcome != ledger.Cut {
		t.Errorf("%+v", e)
	}
	l.up.Handle("silent", func(c *upstream.Call) {
		c.W.Header().Set("Content-Type", "audio/mpeg")
		_, _ = c.W.Write(make([]byte, 1000))
		_ = http.NewResponseController(c.W).Flush()
		<-c.R.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := l.open(ctx, "POST", key, "/v1/audio/speech", `{"model":"up/silent","input":"x","voice":"alloy"}`)
	must(t, err)
	_, err = io.ReadFull(resp.Body, make([]byte, 1000))
	must(t, err)
	cancel()
	resp.Body.Close()
	must(t, l.up.WaitClosed(1, patience))
	if e := l.lastBooked(2); e.Outcome != ledger.Cancelled {
		t.Errorf("%+v", e)
	}
}

// TestFormBounds: forms are bounded one by one, by company and in all, and by what
// they may be.
func TestFormBounds(t *testing.T) {
	l := newLab(t, labOptions{settings: func(s *Settings) {
		s.MaxForm, s.FormsPerCompany, s.FormsTotal = 2<<20, 1<<20, 1<<20+1<<19
	}})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	f := func(size, status int, code string) {
		t.Helper()
		a := l.form(key, "/v1/audio/transcriptions", "file@", strings.Repeat("x", size), "model", "openai/whisper-1")
		if a.status != status || code != "" && a.envelope(t).Code != code {
			t.Errorf("%d bytes: %s", size, a)
		}
		l.settle()
		if l.g.load.disk != 0 {
			t.Errorf("%d bytes are left", l.g.load.disk)
		}
	}
	f(100, 200, "")
	f(900<<10, 200, "")
	f(1200<<10, 429, "forms_in_flight")
	f(3<<20, 413, "")

	g := func(contentType, body string, want string) {
		t.Helper()
		a := l.do("POST", key, "/v1/audio/transcriptions", body, "Content-Type", contentType)
		if a.status != 400 || !strings.Contains(a.envelope(t).Message, want) {
			t.Errorf("%s: %s", contentType, a)
		}
	}
	g("application/json", `{"model":"openai/whisper-1"}`, "multipart/form-data")
	g("multipart/form-data", "x", "boundary")
	g("multipart/form-data; boundary=x", "--x\r\nnothing", "has no header")
	if a := l.form(key, "/v1/chat/completions", "model", "m"); a.status != 400 {
		t.Errorf("a form for a chat: %s", a)
	}
	if n := len(l.up.Requests()); n != 2 {
		t.Errorf("%d requests reached the provider", n)
	}
}

// TestMediaBudget: images and sound are held at the most they may cost, by their
// own units, and one without a price is refused.
func TestMediaBudget(t *testing.T) {
	l := newMoneyLab(t, labOptions{})
	budget := usdFor(20*15_000, tenant.Total)
	key, s := l.buyer(budget, nil)
	say := func(text string) answerGot {
		return l.do("POST", key, "/v1/audio/speech", `{"model":"openai/tts-1","input":"`+text+`","voice":"alloy"}`)
	}
	if a := say("fifteen letters"); a.status != 200 {
		t.Fatalf("%s", a)
	}
	l.settle()
	l.stands(s, budget, 15*15_000)
	if a := say("sixsix"); a.status != 429 || a.envelope(t).Code != "insufficient_quota" {
		t.Errorf("%s", a)
	}
	if a := say("fiver"); a.status != 200 {
		t.Errorf("%s", a)
	}
	if a := l.do("POST", key, "/v1/images/generations", `{"model":"openai/dall-e-3","prompt":"x"}`); a.status != 400 || a.envelope(t).Code != ledger.CodePriceUnknown {
		t.Errorf("%s", a)
	}
	if a := l.do("POST", key, "/v1/chat/completions", chatBody("openai/tts-1", "")); a.status != 400 || a.envelope(t).Code != ledger.CodePriceUnknown {
		t.Errorf("a chat with a voice: %s", a)
	}
}

// The sandbox has images and sound, so that a test key can try them.
func TestMediaSandbox(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyTest, nil)
	var images struct {
		Data []struct {
			B64 []byte `json:"b64_json"`
		}
	}
	a := l.do("POST", key, "/v1/images/generations", `{"model":"openai/gpt-image-1","prompt":"a cat","n":2}`)
	if err := json.Unmarshal([]byte(a.body), &images); err != nil || len(images.Data) != 2 || !bytes.HasPrefix(images.Data[0].B64, []byte("\x89PNG")) {
		t.Errorf("%s, %v", a, err)
	}
	a = l.do("POST", key, "/v1/audio/speech", `{"model":"sandbox/echo","input":"hello","voice":"alloy"}`)
	if a.status != 200 || !strings.HasPrefix(a.body, "RIFF") || a.header.Get("Content-Type") != "audio/wav" {
		t.Errorf("%d %v", a.status, a.header)
	}
	a = l.form(key, "/v1/audio/transcriptions", "file@", a.body, "model", "whisper-1")
	if a.status != 200 || !strings.Contains(a.body, "heard a file of") {
		t.Errorf("%s", a)
	}
	a = l.form(key, "/v1/images/edits", "image@", "png", "prompt", "x", "model", "gpt-image-1", "stream", "true")
	if a.status != 200 || !strings.Contains(a.body, "event: image_edit.completed") {
		t.Errorf("%s", a)
	}
	if len(l.up.Requests()) != 0 {
		t.Error("a test key reached a provider")
	}
	l.settle()
	for _, e := range l.booked() { // sound says nothing of its tokens
		if (e.Rank == ledger.Final) == (e.Kind == "speech") || e.Provider != "sandbox" {
			t.Errorf("%+v", e)
		}
	}
}

// TestCleanForms: what a gateway left that died at the wrong moment goes with the
// next start.
func TestCleanForms(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/form-1", []byte("x"), 0o600))
	must(t, errors.Join(CleanForms(dir), CleanForms(dir+"/new/folder")))
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestMediaIdempotent: a form with an Idempotency-Key is the same form whatever
// its boundary, and sound comes again as it came.
func TestMediaIdempotent(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	same := []string{"Idempotency-Key", "one"}
	hear := func(sound string, header ...string) answerGot {
		contentType, body := form(t, "model", "openai/whisper-1", "file@", sound, "response_format", "srt")
		return l.do("POST", key, "/v1/audio/transcriptions", body, append(header, "Content-Type", contentType)...)
	}
	first := hear("sound", same...)
	l.settle()
	again, other := hear("sound", same...), hear("other", same...)
	if first.status != 200 || again.status != 200 || again.body != first.body || again.header.Get("Content-Type") != first.header.Get("Content-Type") || again.header.Get("X-Bulkhead-Idempotent-Replay") != "true" {
		t.Errorf("%s\n%s", first, again)
	}
	if other.status != 400 || other.envelope(t).Code != "idempotency_key_reused" {
		t.Errorf("%s", other)
	}
	say := func(header ...string) answerGot {
		return l.do("POST", key, "/v1/audio/speech", `{"model":"openai/tts-1","input":"x","voice":"alloy"}`, header...)
	}
	first = say("Idempotency-Key", "two")
	l.settle()
	if again := say("Idempotency-Key", "two"); first.status != 200 || again.body != first.body || again.header.Get("Content-Type") != "audio/mpeg" || len(again.body) != upstream.SpokenBytes {
		t.Errorf("%d bytes, then %d bytes of %v", len(first.body), len(again.body), again.header)
	}
	if n := len(l.up.Requests()); n != 2 {
		t.Errorf("%d calls were made, not 2", n)
	}
}
