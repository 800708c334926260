package blob_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"bulkhead/blob"
	"bulkhead/blob/blobtest"
	"bulkhead/tenant/tenanttest"
	"bulkhead/test/servers"
)

func openFolder(t *testing.T, dir string) *blob.Folder {
	t.Helper()
	f, err := blob.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestFolder(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store { return openFolder(t, filepath.Join(t.TempDir(), "files")) })
}

func TestS3(t *testing.T) {
	var once sync.Once
	var s3 *servers.Server
	var n atomic.Int32
	blobtest.Run(t, func(st *testing.T) blob.Store {
		once.Do(func() { s3 = servers.Start(t, "s3") })
		if s3 == nil {
			st.Skip("no S3")
		}
		b, err := blob.OpenS3(options(s3, fmt.Sprint("/test", n.Add(1))))
		if err != nil {
			st.Fatal(err)
		}
		return b
	})
}

func options(s3 *servers.Server, prefix string) blob.S3Options {
	return blob.S3Options{URL: s3.Var("S3_URL") + "/" + s3.Var("S3_BUCKET") + prefix, Region: s3.Var("S3_REGION"),
		AccessKey: s3.Var("S3_ACCESS_KEY"), SecretKey: s3.Var("S3_SECRET_KEY")}
}

// TestS3Check asks for what is not as it should be.
func TestS3Check(t *testing.T) {
	s3 := servers.Start(t, "s3")
	f := func(edit func(*blob.S3Options), want string) {
		t.Helper()
		o := options(s3, "")
		edit(&o)
		b, err := blob.OpenS3(o)
		if err == nil {
			err = b.Check(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), s3.Var("S3_SECRET_KEY")) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	f(func(o *blob.S3Options) { o.URL = s3.Var("S3_URL") + "/elsewhere" }, "there is no bucket")
	f(func(o *blob.S3Options) { o.URL = s3.Var("S3_URL") }, "names no bucket")
	f(func(o *blob.S3Options) { o.SecretKey = "another" }, "cannot ask for the bucket")
	f(func(o *blob.S3Options) { o.URL = "ftp://127.0.0.1/bucket" }, "must be http or https")
	f(func(o *blob.S3Options) { o.URL = "http://127.0.0.1:1/bucket" }, "cannot ask for the bucket")
	b, err := blob.OpenS3(options(s3, ""))
	if err != nil {
		t.Fatal(err)
	}
	if versioned, err := b.Versioned(t.Context()); versioned || err != nil {
		t.Errorf("Versioned: %t, %v", versioned, err)
	}
}

// TestFolderIsNotLeft plants links that lead out of the folder.
func TestFolderIsNotLeft(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, filepath.Join(dir, "files"))
	s := tenanttest.Scope(t, "acme")
	outside := filepath.Join(dir, "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Put(t.Context(), s, "file-1", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	company := filepath.Join(dir, "files", "companies", s.ID().String())
	if err := os.Symlink(outside, filepath.Join(company, "file-link")); err != nil {
		t.Fatal(err)
	}
	if r, _, err := f.Open(t.Context(), s, "file-link"); err == nil {
		r.Close()
		t.Error("a link out of the folder was followed")
	}
	if _, err := f.Put(t.Context(), s, "file-link", strings.NewReader("written")); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "secret" {
		t.Errorf("what is outside of the folder was changed: %q, %v", b, err)
	}
	if err := os.RemoveAll(company); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, company); err != nil {
		t.Fatal(err)
	}
	if r, _, err := f.Open(t.Context(), s, "outside"); err == nil {
		r.Close()
		t.Error("a company's folder that is a link was followed")
	}
	if _, err := f.Put(t.Context(), s, "file-2", strings.NewReader("x")); err == nil {
		t.Error("a file was put through a company's folder that is a link")
	}
}

// TestFolderKeepsNoRest looks at what is left of what was not put to its end.
func TestFolderKeepsNoRest(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir)
	s := tenanttest.Scope(t, "acme")
	if _, err := f.Put(t.Context(), s, "file-1", failing{}); err == nil {
		t.Fatal("no error")
	}
	left, err := os.ReadDir(filepath.Join(dir, "companies", s.ID().String()))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("no more") }
