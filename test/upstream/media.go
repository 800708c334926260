package upstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
)

// What answers in images and sound say they used.
const (
	ImageTokens  = 100 // of each image
	HeardSeconds = 3
	SpokenBytes  = 100_000
)

// parseForm reads the fields of a form as it reads JSON.
func (c *Call) parseForm(body []byte) bool {
	typ, params, err := mime.ParseMediaType(c.R.Header.Get("Content-Type"))
	if err != nil || typ != "multipart/form-data" {
		return false
	}
	c.Fields = map[string][]string{}
	r := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for {
		p, err := r.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			c.badBody = true
			return true
		}
		value, err := io.ReadAll(p)
		if err != nil {
			c.badBody = true
			return true
		}
		if p.FileName() != "" {
			c.FileBytes += len(value)
		}
		c.Fields[p.FormName()] = append(c.Fields[p.FormName()], string(value))
	}
	first := func(name string) string { return strings.Join(c.Fields[name], ",") }
	c.in.Model, c.in.Stream = first("model"), first("stream") == "true"
	c.in.N, _ = strconv.Atoi(first("n"))
	return true
}

// media answers for images and sound: pictures that are none, SpokenBytes that
// are no MP3, and how many bytes were heard.
func (c *Call) media() {
	path := c.R.URL.Path
	switch {
	case strings.Contains(path, "/images/") && c.Stream:
		c.W.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(c.W, "event: image_generation.partial_image\ndata: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"cGFydA==\",\"partial_image_index\":0}\n\n")
		fmt.Fprintf(c.W, "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"d2hvbGU=\",\"usage\":{\"input_tokens\":%d,\"output_tokens\":%d,\"total_tokens\":%d,\"input_tokens_details\":{\"text_tokens\":%[1]d,\"image_tokens\":0}}}\n\n",
			PromptTokens, ImageTokens, PromptTokens+ImageTokens)
	case strings.Contains(path, "/images/"):
		n := max(c.in.N, 1)
		images := make([]map[string]string, n)
		for i := range images {
			images[i] = map[string]string{"b64_json": "cGljdHVyZQ=="}
		}
		answer := map[string]any{"created": 1, "data": images}
		if strings.HasPrefix(c.Model, "gpt-image") {
			answer["usage"] = map[string]any{"input_tokens": PromptTokens, "output_tokens": n * ImageTokens, "total_tokens": PromptTokens + n*ImageTokens,
				"input_tokens_details": map[string]int{"text_tokens": PromptTokens, "image_tokens": 0}}
		}
		writeJSON(c.W, http.StatusOK, answer)
	case strings.HasSuffix(path, "/audio/speech"):
		c.W.Header().Set("Content-Type", "audio/mpeg")
		c.W.Header().Set("Content-Length", strconv.Itoa(SpokenBytes))
		_, _ = c.W.Write(Spoken())
	case len(c.Fields["response_format"]) > 0 && c.Fields["response_format"][0] == "srt":
		c.W.Header().Set("Content-Type", "text/plain")
		fmt.Fprintf(c.W, "1\n00:00:00,000 --> 00:00:03,000\n%d bytes\n", c.FileBytes)
	case c.Stream && c.Model != "whisper-1":
		c.W.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(c.W, "data: {\"type\":\"transcript.text.delta\",\"delta\":\"%d bytes\"}\n\n", c.FileBytes)
		fmt.Fprintf(c.W, "data: {\"type\":\"transcript.text.done\",\"text\":\"%d bytes\",\"usage\":{\"type\":\"tokens\",\"input_tokens\":30,\"output_tokens\":5,\"total_tokens\":35}}\n\n", c.FileBytes)
	default:
		usage, _ := json.Marshal(map[string]any{"type": "duration", "seconds": HeardSeconds})
		writeJSON(c.W, http.StatusOK, map[string]any{"text": fmt.Sprintf("%d bytes", c.FileBytes), "usage": json.RawMessage(usage)})
	}
}

// Spoken is what an answer in sound is made of.
func Spoken() []byte {
	b := make([]byte, SpokenBytes)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}
