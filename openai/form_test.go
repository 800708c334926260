package openai

import (
	"bytes"
	"io"
	"mime/multipart"
	"strings"
	"testing"

	"bulkhead/fault"
)

const formType = `multipart/form-data; boundary=XX`

// formOf writes parts as the SDKs do: a name, or a name and "@" for a file, and
// the value.
func formOf(parts ...string) string {
	var b strings.Builder
	for i := 0; i < len(parts); i += 2 {
		name, file := strings.CutSuffix(parts[i], "@")
		b.WriteString("--XX\r\nContent-Disposition: form-data; name=\"" + name + `"`)
		if file {
			b.WriteString("; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg")
		}
		b.WriteString("\r\n\r\n" + parts[i+1] + "\r\n")
	}
	return b.String() + "--XX--\r\n"
}

func scanForm(e Endpoint, body string) (*Request, error) {
	r := new(Request)
	return r, r.ScanForm(e, formType, strings.NewReader(body), int64(len(body)))
}

func TestScanForm(t *testing.T) {
	sound := strings.Repeat("\x00\xff\r\n-", 20_000) // larger than what is read at a time
	body := formOf("file@", sound, "model", "whisper-1", "prompt", "grüezi", "timestamp_granularities[]", "word", "timestamp_granularities[]", "segment", "stream", "true", "user", "")
	r, err := scanForm(Transcriptions, body)
	if err != nil {
		t.Fatal(err)
	}
	if r.Model != "whisper-1" || !r.Stream || r.AudioBytes != int64(len(sound)) || r.Audios != 1 || r.Form.FileBytes != int64(len(sound)) {
		t.Errorf("%+v", r)
	}
	if r.TextBytes != int64(len("grüezi")+len("word")+len("segment")) {
		t.Errorf("%d bytes of text", r.TextBytes)
	}
	var names []string
	for _, s := range r.Seen {
		names = append(names, string(s.Name.Of(r.Body)))
	}
	if got := strings.Join(names, " "); got != "file model prompt timestamp_granularities timestamp_granularities stream user" {
		t.Errorf("seen %s", got)
	}
	// To the upstream go the same bytes, but for the name of the model, each time.
	open, size := r.Form.Reader(strings.NewReader(body), "longer/name")
	want := strings.Replace(body, "whisper-1", "longer/name", 1)
	for range 2 {
		if got, err := io.ReadAll(open()); err != nil || string(got) != want || size != int64(len(want)) {
			t.Errorf("%d bytes of %d, %v", len(got), size, err)
		}
	}
}

// A form without a model gets one, before everything else.
func TestFormWithoutModel(t *testing.T) {
	body := formOf("image@", "png", "n", "3")
	r, err := scanForm(ImageVariations, body)
	if err != nil || r.Model != "dall-e-2" || r.N != 3 || r.Images != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	open, size := r.Form.Reader(strings.NewReader(body), "dall-e-2")
	got, _ := io.ReadAll(open())
	if want := formOf("model", "dall-e-2", "image@", "png", "n", "3"); string(got) != want || size != int64(len(want)) {
		t.Errorf("%q", got)
	}
}

func TestScanFormRefuses(t *testing.T) {
	f := func(body, param string) {
		t.Helper()
		_, err := scanForm(Transcriptions, body)
		if err == nil || !fault.Is(err, fault.Invalid) || fault.As(err).Param != param {
			t.Errorf("%.300q: %v (param %q)", body, err, fault.As(err).Param)
		}
	}
	ok := func(body string) {
		t.Helper()
		if _, err := scanForm(Transcriptions, body); err != nil {
			t.Errorf("%.300q: %v", body, err)
		}
	}
	file := "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nx\r\n"
	model := "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n"
	ok(file + model + "--XX--")
	ok(file + model + "--XX--\r\n")

	// The model, and who reads another.
	f(file+"--XX--\r\n", "model")
	f(file+model+model+"--XX--\r\n", "model")
	f(formOf("file@", "x", "model", "m", "Model", "m2"), "model")
	f(formOf("file@", "x", "model", "m", "model[]", "m2"), "model")
	f(formOf("file@", "x", "model", ""), "model")
	f(formOf("file@", "x", "model", "a\nb"), "model")
	f(formOf("file@", "x", "model@", "m"), "model")
	f(formOf("file@", "x", "model", strings.Repeat("m", 300)), "model")
	// Fields.
	f(formOf("file", "x", "model", "m"), "file")
	f(formOf("file@", "", "model", "m"), "file")
	f(formOf("model", "m"), "file")
	f(formOf("file@", "x", "file@", "y", "model", "m"), "file")
	f(formOf("file@", "x", "model", "m", "stream", "True"), "stream")
	f(formOf("file@", "x", "model", "m", "prompt", "\xff"), "prompt")
	f(formOf("file@", "x", "model", "m", "prompt", strings.Repeat("p", MaxFormField+1)), "prompt")
	// The form itself: whatever one reader may take for a part and another not.
	f("", "")
	f("--XX--\r\n", "")
	f("preamble\r\n"+file+model+"--XX--\r\n", "")
	f(file+model, "")
	f(file+model+"--XX\r\n", "")
	f(file+model+"--XX--\r\nepilogue", "")
	f(strings.ReplaceAll(file+model+"--XX--\r\n", "\r\n", "\n"), "")
	f(strings.Replace(file, "x\r\n", "x\n--XX\nContent-Disposition: form-data; name=\"model\"\n\nother\r\n", 1)+model+"--XX--\r\n", "") // LF only
	f(strings.Replace(file, "x\r\n", "x--XX--\r\n", 1)+model+"--XX--\r\n", "")
	f(strings.Replace(file, "\r\n\r\nx", "\r\n\r\n--XX", 1)+model+"--XX--\r\n", "")
	f(strings.Replace(file, "--XX\r\n", "--XX \r\n", 1)+model+"--XX--\r\n", "")
	f(strings.Replace(file, `filename="a"`, `filename="--XX"`, 1)+model+"--XX--\r\n", "")
	f("--XX\r\n\r\nx\r\n"+model+"--XX--\r\n", "")
	f(strings.Replace(file, "form-data", "attachment", 1)+model+"--XX--\r\n", "")
	f(strings.Replace(file, `name="file"`, `name=file`, 1)+strings.Replace(model, `"model"`, `"mo\del"`, 1)+"--XX--\r\n", "")
	f(file+strings.Replace(model, `name="model"`, `name="model"; name="other"`, 1)+"--XX--\r\n", "")
	f(file+strings.Replace(model, `name="model"`, `name*=utf-8''model`, 1)+"--XX--\r\n", "")
	f(file+strings.Replace(model, "\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1)+"--XX--\r\n", "")
	f(file+strings.Replace(model, "\r\n\r\n", "\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\n", 1)+"--XX--\r\n", "")
	f(file+strings.Replace(model, "\r\n\r\n", "\r\n folded\r\n\r\n", 1)+"--XX--\r\n", "")
	f(file+strings.Replace(model, "\r\n\r\n", "\r\nX: "+strings.Repeat("h", MaxFormHeader)+"\r\n\r\n", 1)+"--XX--\r\n", "")
	f(strings.Repeat("--XX\r\nContent-Disposition: form-data; name=\"include[]\"\r\n\r\nx\r\n", MaxFormParts+1)+"--XX--\r\n", "")
}

func TestFormBoundary(t *testing.T) {
	f := func(contentType, want string) {
		t.Helper()
		if got, err := FormBoundary(contentType); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", contentType, got, err)
		}
	}
	f("multipart/form-data; boundary=----WebKitFormBoundary7MA4", "----WebKitFormBoundary7MA4")
	f(`Multipart/Form-Data; charset=utf-8; boundary="a b"`, "a b")
	f("multipart/form-data", "")
	f("multipart/mixed; boundary=a", "")
	f("multipart/form-data; boundary=", "")
	f(`multipart/form-data; boundary="a "`, "")
	f(`multipart/form-data; boundary="a<b"`, "")
	f("multipart/form-data; boundary="+strings.Repeat("a", 71), "")
	f("application/json", "")
}

// FuzzScanForm: what is accepted, Go's own reader reads alike, and so is what
// goes to the upstream.
func FuzzScanForm(f *testing.F) {
	f.Add(formOf("file@", "sound", "model", "whisper-1", "prompt", "x"))
	f.Add(formOf("model", "m", "file@", "\r\n--X", "language", "de"))
	f.Add("--XX\r\nContent-Disposition: form-data; name=\"file\"; filename*=utf-8''a\r\n\r\nx\r\n--XX--")
	f.Fuzz(func(t *testing.T, body string) {
		r, err := scanForm(Transcriptions, body)
		if err != nil {
			if _, ok := err.(*fault.Error); !ok {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		open, size := r.Form.Reader(strings.NewReader(body), "upstream-model")
		sent, err := io.ReadAll(open())
		if err != nil || int64(len(sent)) != size {
			t.Fatalf("%d of %d bytes, %v", len(sent), size, err)
		}
		models, files, fileBytes := read(t, body)
		if len(models) != 1 || models[0] != r.Model || files != 1 || fileBytes != r.AudioBytes {
			t.Fatalf("read as model %q, %d files of %d bytes; scanned as %q, %d bytes\n%q", models, files, fileBytes, r.Model, r.AudioBytes, body)
		}
		if models, files, n := read(t, string(sent)); len(models) != 1 || models[0] != "upstream-model" || files != 1 || n != fileBytes {
			t.Fatalf("sent with model %q, %d files\n%q", models, files, sent)
		}
	})
}

// read reads a form as Go's library does.
func read(t *testing.T, body string) (models []string, files int, fileBytes int64) {
	t.Helper()
	r := multipart.NewReader(strings.NewReader(body), "XX")
	for {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return models, files, fileBytes
		}
		if err != nil {
			t.Fatalf("accepted, and Go's reader says %v\n%q", err, body)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(p); err != nil {
			t.Fatalf("accepted, and Go's reader says %v\n%q", err, body)
		}
		switch p.FormName() {
		case "model":
			models = append(models, b.String())
		case "file":
			files++
			fileBytes += int64(b.Len())
		}
	}
}
