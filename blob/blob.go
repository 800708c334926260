// Package blob keeps the bytes of companies' files: in a folder, or in S3.
//
// A blob's name is companies/<company id>/<file id>, made here of a Scope and an
// id: nobody else puts a name together. The two implementations keep one contract,
// Store, which package blobtest tests. What a file is called, whose project it is
// and who may see it is in the store, and is looked up there before a blob is asked
// for.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"bulkhead/tenant"
)

// ErrNotFound is returned for a blob that is not there.
var ErrNotFound = errors.New("no such blob")

// Store keeps blobs. Its methods may be called from many goroutines. An id has 1 to
// 64 letters, digits, ".", "_" and "-" and is not of dots only: any other is an error.
type Store interface {
	// Put stores what r has, up to its end, in place of what was there, and returns
	// how much that was. It holds a bounded part of it in memory. After an error of r
	// or of the store the blob is as it was before.
	Put(ctx context.Context, s tenant.Scope, id string, r io.Reader) (size int64, err error)
	// Open returns a blob and its size, or ErrNotFound. Reading fails once ctx is over.
	Open(ctx context.Context, s tenant.Scope, id string) (r io.ReadCloser, size int64, err error)
	// Delete removes a blob, if it is there.
	Delete(ctx context.Context, s tenant.Scope, id string) error
	// Link returns an address at which anybody who has it can read the blob for
	// LinkTime, under a file name; "" where the store has none to give.
	Link(ctx context.Context, s tenant.Scope, id, name string) (url string, err error)
	// Erase removes all blobs of the company, what was not put to its end too, and
	// counts afterwards that none is left: the error says how many are.
	Erase(ctx context.Context, s tenant.Scope) error
	// Check returns nil if blobs can be put and read. It changes nothing.
	Check(ctx context.Context) error
}

// LinkTime is for how long a Link is good.
const LinkTime = 5 * time.Minute

var (
	goodID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	dots   = regexp.MustCompile(`^\.+$`)
)

// folderOf returns the folder of a company, without a slash at its end.
func folderOf(s tenant.Scope) (string, error) {
	company := s.ID().String()
	if err := checkID(company); err != nil {
		return "", err
	}
	return "companies/" + company, nil
}

// nameOf returns the name of a blob.
func nameOf(s tenant.Scope, id string) (string, error) {
	folder, err := folderOf(s)
	if err != nil {
		return "", err
	}
	if err := checkID(id); err != nil {
		return "", err
	}
	return folder + "/" + id, nil
}

func checkID(id string) error {
	if !goodID.MatchString(id) || dots.MatchString(id) {
		return fmt.Errorf("%.70q cannot be the id of a blob", id)
	}
	return nil
}

// left is the error of an Erase after which there are blobs.
func left(n int) error {
	if n > 0 {
		return fmt.Errorf("%d blobs of the company are left", n)
	}
	return nil
}

// whileReader ends reading with the context.
type whileReader struct {
	ctx context.Context
	r   io.Reader
}

func (w whileReader) Read(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(b)
}
