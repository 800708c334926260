// Package blobtest is the contract of blob.Store as a suite of tests. Whatever
// keeps blobs passes it.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"bulkhead/blob"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// Run runs the suite on an empty store.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"Put", testPut}, {"Broken", testBroken}, {"Large", testLarge}, {"IDs", testIDs}, {"Companies", testCompanies},
		{"Delete", testDelete}, {"Erase", testErase}, {"Cancelled", testCancelled}, {"Link", testLink}, {"Racing", testRacing},
		{"ZeroScope", testZeroScope},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(t, &world{open(t), tenanttest.Scope(t, "Same name"), tenanttest.Scope(t, "Same name")})
		})
	}
}

// world is a store and two companies.
type world struct {
	blob.Store
	acme, beta tenant.Scope
}

func (w *world) put(t *testing.T, s tenant.Scope, id, text string) {
	t.Helper()
	n, err := w.Put(t.Context(), s, id, strings.NewReader(text))
	if err != nil || n != int64(len(text)) {
		t.Fatalf("Put(%q): %d bytes, %v", id, n, err)
	}
}

// want checks what the blob is; "" is that there is none.
func (w *world) want(t *testing.T, s tenant.Scope, id, text string) {
	t.Helper()
	r, size, err := w.Open(t.Context(), s, id)
	if text == "" {
		if !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("Open(%q): %v, want ErrNotFound", id, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("Open(%q): %v", id, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil || string(b) != text || size != int64(len(text)) {
		t.Errorf("Open(%q): %.40q of size %d, %v; want %.40q", id, b, size, err, text)
	}
}

func testPut(t *testing.T, w *world) {
	if err := w.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want(t, w.acme, "file-1", "")
	w.put(t, w.acme, "file-1", "what it says")
	w.want(t, w.acme, "file-1", "what it says")
	w.put(t, w.acme, "file-1", "what it says now")
	w.want(t, w.acme, "file-1", "what it says now")
	n, err := w.Put(t.Context(), w.acme, "file-empty", strings.NewReader(""))
	if n != 0 || err != nil {
		t.Fatalf("an empty blob: %d bytes, %v", n, err)
	}
	r, size, err := w.Open(t.Context(), w.acme, "file-empty")
	if err != nil || size != 0 {
		t.Fatalf("an empty blob: size %d, %v", size, err)
	}
	r.Close()
}

// breaks is a reader that ends with an error.
type breaks struct{ r io.Reader }

var errBroken = errors.New("the client left")

func (b breaks) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == io.EOF {
		err = errBroken
	}
	return n, err
}

func testBroken(t *testing.T, w *world) {
	for _, size := range []int{0, 10, 6 << 20} {
		_, err := w.Put(t.Context(), w.acme, "file-broken", breaks{bytes.NewReader(make([]byte, size))})
		if !errors.Is(err, errBroken) {
			t.Errorf("Put of a broken reader: %v", err)
		}
		w.want(t, w.acme, "file-broken", "")
	}
	w.put(t, w.acme, "file-kept", "as it was")
	_, err := w.Put(t.Context(), w.acme, "file-kept", breaks{strings.NewReader("as it should not be")})
	if !errors.Is(err, errBroken) {
		t.Errorf("Put of a broken reader: %v", err)
	}
	w.want(t, w.acme, "file-kept", "as it was")
}

func testLarge(t *testing.T, w *world) {
	b := make([]byte, 11<<20+7)
	rand.NewChaCha8([32]byte{7}).Read(b)
	w.put(t, w.acme, "file-large", string(b))
	w.want(t, w.acme, "file-large", string(b))
}

func testIDs(t *testing.T, w *world) {
	w.put(t, w.beta, "file-1", "of beta")
	beta := w.beta.ID().String()
	for _, id := range []string{"", ".", "..", "...", "a/b", "../" + beta + "/file-1", "/etc/passwd", "a\x00b", "a\nb", "é", "a b", `a\b`, "%2e%2e", "*",
		strings.Repeat("a", 65)} {
		if _, err := w.Put(t.Context(), w.acme, id, strings.NewReader("x")); err == nil {
			t.Errorf("Put took %q", id)
		}
		if r, _, err := w.Open(t.Context(), w.acme, id); err == nil {
			r.Close()
			t.Errorf("Open took %q", id)
		}
		if err := w.Delete(t.Context(), w.acme, id); err == nil {
			t.Errorf("Delete took %q", id)
		}
		if url, err := w.Link(t.Context(), w.acme, id, "x"); err == nil && url != "" {
			t.Errorf("Link took %q", id)
		}
	}
	w.want(t, w.beta, "file-1", "of beta")
	for _, id := range []string{"file-AbC_1.pdf", strings.Repeat("a", 64), "..a"} {
		w.put(t, w.acme, id, "of acme")
		w.want(t, w.acme, id, "of acme")
	}
}

func testCompanies(t *testing.T, w *world) {
	w.put(t, w.acme, "file-1", "of acme")
	w.want(t, w.beta, "file-1", "")
	w.put(t, w.beta, "file-1", "of beta")
	w.want(t, w.acme, "file-1", "of acme")
	if err := w.Delete(t.Context(), w.acme, "file-1"); err != nil {
		t.Fatal(err)
	}
	w.want(t, w.acme, "file-1", "")
	w.want(t, w.beta, "file-1", "of beta")
}

func testDelete(t *testing.T, w *world) {
	w.put(t, w.acme, "file-1", "x")
	for range 2 {
		if err := w.Delete(t.Context(), w.acme, "file-1"); err != nil {
			t.Fatal(err)
		}
	}
	w.want(t, w.acme, "file-1", "")
}

func testErase(t *testing.T, w *world) {
	for _, id := range []string{"file-1", "file-2", "file-3"} {
		w.put(t, w.acme, id, "of acme")
		w.put(t, w.beta, id, "of beta")
	}
	for range 2 {
		if err := w.Erase(t.Context(), w.acme); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"file-1", "file-2", "file-3"} {
		w.want(t, w.acme, id, "")
		w.want(t, w.beta, id, "of beta")
	}
}

func testCancelled(t *testing.T, w *world) {
	w.put(t, w.acme, "file-1", "x")
	ctx, cancel := context.WithCancel(t.Context())
	r, _, err := w.Open(ctx, w.acme, "file-1")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if _, err := io.ReadAll(r); err == nil {
		t.Error("a blob could be read after its context was over")
	}
	if _, err := w.Put(ctx, w.acme, "file-2", strings.NewReader("x")); err == nil {
		t.Error("a blob could be put after the context was over")
	}
	w.want(t, w.acme, "file-2", "")
}

func testLink(t *testing.T, w *world) {
	w.put(t, w.acme, "file-1", "of acme")
	url, err := w.Link(t.Context(), w.acme, "file-1", `a "name".pdf`)
	if err != nil {
		t.Fatal(err)
	}
	if url == "" {
		t.Skip("this store has no links")
	}
	get := func(url string) (int, string, http.Header) {
		t.Helper()
		a, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return a.StatusCode, string(b), a.Header
	}
	status, body, h := get(url)
	if status != http.StatusOK || body != "of acme" || !strings.Contains(h.Get("Content-Disposition"), `a \"name\".pdf`) {
		t.Errorf("the link answers %d %q %q", status, body, h.Get("Content-Disposition"))
	}
	if !strings.Contains(url, "X-Amz-Expires=300") {
		t.Error("the link is not good for 5 minutes")
	}
	w.put(t, w.beta, "file-1", "of beta")
	other := strings.Replace(url, w.acme.ID().String(), w.beta.ID().String(), 1)
	if other == url {
		t.Fatal("the link does not name the company")
	}
	if status, body, _ := get(other); status != http.StatusForbidden || strings.Contains(body, "of beta") {
		t.Errorf("the link of one company opens another's blob: %d %q", status, body)
	}
}

func testRacing(t *testing.T, w *world) {
	var wg sync.WaitGroup
	texts := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 100_000)}
	for _, text := range texts {
		wg.Go(func() {
			for range 5 {
				if _, err := w.Put(t.Context(), w.acme, "file-1", strings.NewReader(text)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r, _, err := w.Open(t.Context(), w.acme, "file-1")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != texts[0] && string(b) != texts[1] {
		t.Errorf("two that were put at once are mixed: %v", err)
	}
}

func testZeroScope(t *testing.T, w *world) {
	f := func(what string, do func(s tenant.Scope)) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s took the zero Scope", what)
			}
		}()
		var none tenant.Scope
		do(none)
	}
	f("Put", func(s tenant.Scope) { w.Put(t.Context(), s, "file-1", strings.NewReader("x")) })
	f("Open", func(s tenant.Scope) { w.Open(t.Context(), s, "file-1") })
	f("Delete", func(s tenant.Scope) { w.Delete(t.Context(), s, "file-1") })
	f("Link", func(s tenant.Scope) {
		if url, err := w.Link(t.Context(), s, "file-1", "x"); url == "" && err == nil {
			panic("it has none")
		}
	})
	f("Erase", func(s tenant.Scope) { w.Erase(t.Context(), s) })
}
