package test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"
)

// form is a body with a file in it, in the field "file" if of is "".
type form struct {
	fields     map[string]string
	name, text string // of the file
	of         string
}

func (f form) encode() (body []byte, kind string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	file, err := w.CreateFormFile(cmp.Or(f.of, "file"), f.name) // first, as the SDK for Node does
	if err == nil {
		_, err = file.Write([]byte(f.text))
	}
	for name, value := range f.fields {
		if err == nil {
			err = w.WriteField(name, value)
		}
	}
	if err != nil || w.Close() != nil {
		panic("BUG: a form cannot be written")
	}
	return b.Bytes(), w.FormDataContentType()
}

// aFile is a file that both companies have, but for the id in it.
func aFile(s *side) form {
	return form{fields: map[string]string{"purpose": "assistants"}, name: "same.txt", text: "Same name, and the text of " + s.ID + "."}
}

// post creates something with a key of the first project and returns its id.
func (w *world) post(t *testing.T, s *side, path string, body any) string {
	t.Helper()
	var o struct {
		ID string `json:"id"`
	}
	a := ask(t, http.MethodPost, w.g.URL+path, s.APIKey, body).want(t, path, http.StatusOK)
	if err := json.Unmarshal(a.body, &o); err != nil || o.ID == "" {
		t.Fatalf("POST %s answered without an id: %v", path, err)
	}
	return o.ID
}

func (w *world) upload(t *testing.T, s *side) string {
	t.Helper()
	return w.post(t, s, "/v1/files", aFile(s))
}

func makeStore(t *testing.T, w *world, s *side, _ string) string {
	return w.post(t, s, "/v1/vector_stores", map[string]any{"name": "Same store"})
}

// storeIn returns the store that parent is, or the one that s keeps for a project.
func storeIn(t *testing.T, w *world, s *side, parent string) string {
	t.Helper()
	if strings.HasPrefix(parent, "vs_") {
		return parent
	}
	if s.stable["store"+parent] == "" {
		s.stable["store"+parent] = makeStore(t, w, s, parent)
	}
	return s.stable["store"+parent]
}

// someItems are what both companies add to conversations.
var someItems = map[string]any{"items": []any{map[string]any{"role": "user", "content": "Same words."}}}

// makeItem makes an item of the conversation that parent is, or of the one that s
// keeps for a project.
func makeItem(t *testing.T, w *world, s *side, parent string) string {
	t.Helper()
	in := parent
	if !strings.HasPrefix(parent, "conv_") {
		if in = s.stable["conversation"+parent]; in == "" {
			in = w.post(t, s, "/v1/conversations", nil)
			s.stable["conversation"+parent] = in
		}
	}
	var o struct {
		LastID string `json:"last_id"`
	}
	w.g.call(t, http.MethodPost, w.g.URL+"/v1/conversations/"+in+"/items", s.APIKey, someItems, &o)
	return o.LastID
}

func makeStoreFile(t *testing.T, w *world, s *side, parent string) string {
	return w.post(t, s, "/v1/vector_stores/"+storeIn(t, w, s, parent)+"/files", map[string]any{"file_id": w.upload(t, s)})
}

func makeBatch(t *testing.T, w *world, s *side, parent string) string {
	return w.post(t, s, "/v1/vector_stores/"+storeIn(t, w, s, parent)+"/file_batches", map[string]any{"file_ids": []string{w.upload(t, s)}})
}

// takenIn waits until no file of s is being taken in.
func (w *world) takenIn(t *testing.T, s *side) {
	t.Helper()
	eventually(t, 30*time.Second, "all files are taken in", func() bool {
		return !bytes.Contains(ask(t, http.MethodGet, w.g.URL+"/v1/vector_stores?limit=100", s.AdminKey, nil).body, []byte(`"status":"in_progress"`))
	})
}
