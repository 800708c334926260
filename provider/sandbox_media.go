package provider

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"

	"bulkhead/openai"
)

// The sandbox's images are 64 pixels square, of one colour that the prompt
// decides. Its speech is a tone of 50 ms for each character, 8,000 samples a
// second. What it hears is how long the file is, and a second for each 16,000
// bytes of it.
const (
	sandboxPixels     = 64
	sandboxRate       = 8000
	sandboxPerChar    = sandboxRate / 20
	sandboxHeardBytes = 16_000
	sandboxFormMemory = 1 << 20
	sandboxImageToken = 64
)

// sandboxImageRequest is what the sandbox reads of a request for images.
type sandboxImageRequest struct {
	Model, Prompt string
	N             int
	Stream        bool
	Partial       int `json:"partial_images"`
}

// media answers what is not text. ok is false for a path of text.
func (s *SandboxTransport) media(path, contentType string, raw []byte) (resp *http.Response, ok bool, err error) {
	switch path {
	case openai.Images.Path(), openai.ImageEdits.Path(), openai.ImageVariations.Path():
		resp, err = sandboxImages(path, contentType, raw)
	case openai.Speech.Path():
		resp, err = sandboxSpeech(raw)
	case openai.Transcriptions.Path(), openai.Translations.Path():
		resp, err = sandboxHear(contentType, raw)
	default:
		return nil, false, nil
	}
	return resp, true, err
}

// sandboxForm reads the fields of a form, and the size of its file.
func sandboxForm(contentType string, raw []byte) (field map[string]string, file int64, err error) {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, 0, badField("", "the body is not a form")
	}
	form, err := multipart.NewReader(bytes.NewReader(raw), params["boundary"]).ReadForm(sandboxFormMemory)
	if err != nil {
		return nil, 0, badField("", "the body is not a form")
	}
	defer form.RemoveAll()
	field = map[string]string{}
	for name, values := range form.Value {
		field[name] = values[0]
	}
	for _, files := range form.File {
		for _, f := range files {
			file += f.Size
		}
	}
	return field, file, checkModel(field["model"])
}

func sandboxImages(path, contentType string, raw []byte) (*http.Response, error) {
	var q sandboxImageRequest
	if typ, _, _ := mime.ParseMediaType(contentType); typ == "multipart/form-data" {
		field, _, err := sandboxForm(contentType, raw)
		if err != nil {
			return nil, err
		}
		q.Prompt, q.Stream = field["prompt"], field["stream"] == "true"
		q.N, _ = strconv.Atoi(field["n"])
		q.Partial, _ = strconv.Atoi(field["partial_images"])
	} else if err := decode(raw, &q, &q.Model); err != nil {
		return nil, err
	}
	q.N = max(q.N, 1)
	picture, err := sandboxPicture(q.Prompt)
	if err != nil {
		return nil, err
	}
	usage := fmt.Sprintf(`{"input_tokens":%d,"input_tokens_details":{"image_tokens":0,"text_tokens":%[1]d},"output_tokens":%d,"total_tokens":%d}`,
		tokens(q.Prompt), q.N*sandboxImageToken, tokens(q.Prompt)+q.N*sandboxImageToken)
	if q.Stream {
		return sandboxImageEvents(path, picture, usage, &q), nil
	}
	b := fmt.Appendf(nil, `{"created":%d,"data":[`, sandboxCreated)
	for i := range q.N {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"b64_json":%q}`, picture)
	}
	return jsonResponse(http.StatusOK, fmt.Appendf(b, `],"output_format":"png","usage":%s}`, usage)), nil
}

func sandboxImageEvents(path, picture, usage string, q *sandboxImageRequest) *http.Response {
	kind := "image_generation"
	if path == openai.ImageEdits.Path() {
		kind = "image_edit"
	}
	const common = `"background":"opaque","output_format":"png","quality":"low","size":"1024x1024"`
	var b bytes.Buffer
	for i := range q.Partial {
		fmt.Fprintf(&b, "event: %[1]s.partial_image\ndata: {\"type\":\"%[1]s.partial_image\",\"b64_json\":%[2]q,\"created_at\":%[3]d,\"partial_image_index\":%[4]d,%[5]s}\n\n", kind, picture, sandboxCreated, i, common)
	}
	for range q.N {
		fmt.Fprintf(&b, "event: %[1]s.completed\ndata: {\"type\":\"%[1]s.completed\",\"b64_json\":%[2]q,\"created_at\":%[3]d,%[4]s,\"usage\":%[5]s}\n\n", kind, picture, sandboxCreated, common, usage)
	}
	return sandboxResponse(http.StatusOK, "text/event-stream", -1, io.NopCloser(&b))
}

// sandboxPicture returns a PNG in base64.
func sandboxPicture(prompt string) (string, error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(prompt))
	n := h.Sum32()
	img := image.NewPaletted(image.Rect(0, 0, sandboxPixels, sandboxPixels), color.Palette{color.RGBA{byte(n), byte(n >> 8), byte(n >> 16), 255}})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(b.Bytes()), nil
}

func sandboxSpeech(raw []byte) (*http.Response, error) {
	var q struct {
		Model, Input string
		StreamFormat string `json:"stream_format"`
	}
	if err := decode(raw, &q, &q.Model); err != nil {
		return nil, err
	}
	chars := len([]rune(q.Input))
	wav := sandboxTone(chars * sandboxPerChar)
	if q.StreamFormat != "sse" {
		return sandboxResponse(http.StatusOK, "audio/wav", int64(len(wav)), io.NopCloser(bytes.NewReader(wav))), nil
	}
	var b bytes.Buffer
	const piece = 24_000
	for ; len(wav) > 0; wav = wav[min(len(wav), piece):] {
		fmt.Fprintf(&b, "data: {\"type\":\"speech.audio.delta\",\"audio\":%q}\n\n", base64.StdEncoding.EncodeToString(wav[:min(len(wav), piece)]))
	}
	fmt.Fprintf(&b, "data: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":%d,\"output_tokens\":%d,\"total_tokens\":%d}}\n\n",
		tokens(q.Input), chars, tokens(q.Input)+chars)
	return sandboxResponse(http.StatusOK, "text/event-stream", -1, io.NopCloser(&b)), nil
}

// sandboxTone returns that many samples of A4 as a WAV file (RIFF, 8 bits, mono).
func sandboxTone(samples int) []byte {
	le := binary.LittleEndian
	b := append(le.AppendUint32([]byte("RIFF"), uint32(36+samples)), "WAVEfmt "...)
	b = le.AppendUint16(le.AppendUint16(le.AppendUint32(b, 16), 1), 1)
	b = le.AppendUint32(le.AppendUint32(b, sandboxRate), sandboxRate)
	b = le.AppendUint16(le.AppendUint16(b, 1), 8)
	b = le.AppendUint32(append(b, "data"...), uint32(samples))
	for i := range samples {
		b = append(b, byte(128+100*math.Sin(2*math.Pi*440*float64(i)/sandboxRate)))
	}
	return b
}

func sandboxHear(contentType string, raw []byte) (*http.Response, error) {
	field, size, err := sandboxForm(contentType, raw)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("The sandbox heard a file of %d bytes.", size)
	seconds := (size + sandboxHeardBytes - 1) / sandboxHeardBytes
	usage := fmt.Sprintf(`{"type":"tokens","input_tokens":%d,"output_tokens":%d,"total_tokens":%d}`, seconds*10, tokens(text), seconds*10+int64(tokens(text)))
	switch {
	case field["stream"] == "true":
		events := fmt.Sprintf("data: {\"type\":\"transcript.text.delta\",\"delta\":%q}\n\ndata: {\"type\":\"transcript.text.done\",\"text\":%[1]q,\"usage\":%s}\n\n", text, usage)
		return sandboxResponse(http.StatusOK, "text/event-stream", -1, io.NopCloser(bytes.NewReader([]byte(events)))), nil
	case field["response_format"] == "text":
		return sandboxResponse(http.StatusOK, "text/plain; charset=utf-8", int64(len(text)+1), io.NopCloser(bytes.NewReader([]byte(text+"\n")))), nil
	case field["response_format"] == "verbose_json":
		b, err := json.Marshal(map[string]any{"task": "transcribe", "language": "english", "duration": float64(seconds), "text": text, "segments": []any{},
			"usage": map[string]any{"type": "duration", "seconds": seconds}})
		return jsonResponse(http.StatusOK, b), err
	}
	return jsonResponse(http.StatusOK, fmt.Appendf(nil, `{"text":%q,"usage":%s}`, text, usage)), nil
}
