package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"bulkhead/tenant"
)

// Folder keeps blobs as files below one folder, which nothing leaves: neither a
// name nor a link in it. It is for one gateway.
type Folder struct{ root *os.Root }

// OpenFolder opens a folder, made for the owner only if it is not there.
func OpenFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of files: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the folder of files: %w", err)
	}
	return &Folder{root}, nil
}

// Close closes the folder. It is safe to call twice.
func (f *Folder) Close() error { return f.root.Close() }

// partial is how the names of files begin that are being written. No id of a blob
// that is asked for begins so by chance: what follows is random.
const partial = ".partial-"

// Put implements Store: the file is whole and on the disk before it has its name.
func (f *Folder) Put(ctx context.Context, s tenant.Scope, id string, r io.Reader) (size int64, err error) {
	name, err := nameOf(s, id)
	if err != nil {
		return 0, err
	}
	dir := path.Dir(name)
	if err := f.root.MkdirAll(dir, 0o700); err != nil {
		return 0, fmt.Errorf("cannot make the folder of a company's files: %w", err)
	}
	temporary := path.Join(dir, partial+rand.Text())
	file, err := f.root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fmt.Errorf("cannot make a file: %w", err)
	}
	defer func() {
		if err != nil {
			f.root.Remove(temporary)
		}
	}()
	size, err = io.Copy(file, whileReader{ctx, r})
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return 0, fmt.Errorf("cannot write a file: %w", err)
	}
	if err := f.root.Rename(temporary, name); err != nil {
		return 0, fmt.Errorf("cannot name a file: %w", err)
	}
	return size, f.sync(dir)
}

// sync writes a folder's names to the disk.
func (f *Folder) sync(dir string) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open implements Store.
func (f *Folder) Open(ctx context.Context, s tenant.Scope, id string) (io.ReadCloser, int64, error) {
	name, err := nameOf(s, id)
	if err != nil {
		return nil, 0, err
	}
	file, err := f.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, ErrNotFound
	}
	if err != nil {
		return nil, 0, fmt.Errorf("cannot open a file: %w", err)
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, 0, errors.Join(err, ErrNotFound)
	}
	return struct {
		io.Reader
		io.Closer
	}{whileReader{ctx, file}, file}, info.Size(), nil
}

// Delete implements Store.
func (f *Folder) Delete(_ context.Context, s tenant.Scope, id string) error {
	name, err := nameOf(s, id)
	if err != nil {
		return err
	}
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot delete a file: %w", err)
	}
	return nil
}

// Link implements Store: a folder has no addresses.
func (f *Folder) Link(context.Context, tenant.Scope, string, string) (string, error) { return "", nil }

// Erase implements Store.
func (f *Folder) Erase(_ context.Context, s tenant.Scope) error {
	dir, err := folderOf(s)
	if err != nil {
		return err
	}
	if err := f.root.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot remove a company's files: %w", err)
	}
	some, err := fs.ReadDir(f.root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, left(len(some)))
}

// Check implements Store.
func (f *Folder) Check(context.Context) error {
	_, err := f.root.Stat(".")
	return err
}
