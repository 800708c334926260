package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
)

// openMapped opens the file of a segment to write to it. Its first room bytes are
// taken on the disk now, so that a disk without room says so here, and are memory
// of this process: what is stored there is the file's, whatever becomes of the
// process, as after a write(2), at a fraction of what that costs. A file system
// that cannot do that gets a file that is written to.
func openMapped(path string, room int64) (segmentFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	m := &mappedFile{File: f, at: info.Size()}
	err = m.control(func(fd int) error { return syscall.Fallocate(fd, 0, 0, room) })
	if err == nil {
		err = m.control(func(fd int) (err error) {
			m.memory, err = syscall.Mmap(fd, 0, int(room), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
			return err
		})
	}
	switch err {
	case nil:
		return m, nil
	case syscall.ENOSPC, syscall.EDQUOT:
		return nil, errors.Join(fmt.Errorf("cannot make room on the disk: %w", err), f.Close())
	}
	if err := m.Seal(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return m, nil
}

// mappedFile is the file of a segment, of which the beginning is memory.
type mappedFile struct {
	*os.File
	memory []byte // nil where it is written to like any other file
	at     int64  // where the next write goes
}

// errFault is the error for memory that has no file behind it any more: the file
// was cut off by somebody, or the disk failed.
var errFault = errors.New("the file of the journal cannot be reached through memory")

// Write implements segmentFile.
func (m *mappedFile) Write(b []byte) (n int, err error) {
	if m.memory != nil && m.at+int64(len(b)) > int64(len(m.memory)) {
		err = m.unmap()
	}
	switch {
	case err != nil:
	case m.memory == nil:
		n, err = m.WriteAt(b, m.at)
	default:
		n, err = m.store(b)
		if err != nil { // what comes next has the answer of a file
			err = errors.Join(err, m.unmap())
		}
	}
	m.at += int64(n)
	return n, err
}

// store copies b into memory. Its first bytes, the length of a record, come last:
// a process that is killed before that leaves no record.
func (m *mappedFile) store(b []byte) (n int, err error) {
	defer faults(debug.SetPanicOnFault(true), &err)
	to := m.memory[m.at:]
	const length = 4
	if len(b) < length {
		return copy(to, b), nil
	}
	copy(to[length:], b[length:])
	binary.LittleEndian.PutUint32(to, binary.LittleEndian.Uint32(b))
	return len(b), nil
}

// Truncate implements segmentFile. The memory behind size is zeros again, as it
// was.
func (m *mappedFile) Truncate(size int64) (err error) {
	if m.memory == nil {
		if err := m.File.Truncate(size); err != nil {
			return err
		}
	} else if err := m.clear(size); err != nil {
		return err
	}
	m.at = size
	return nil
}

func (m *mappedFile) clear(from int64) (err error) {
	defer faults(debug.SetPanicOnFault(true), &err)
	clear(m.memory[from:max(from, m.at)])
	return nil
}

// faults is deferred around what touches memory, and makes an error of a fault.
// before is what SetPanicOnFault was.
func faults(before bool, err *error) {
	debug.SetPanicOnFault(before)
	r := recover()
	if r == nil {
		return
	}
	if _, ok := r.(interface{ Addr() uintptr }); !ok {
		panic(r)
	}
	*err = errFault
}

// Seal implements segmentFile.
func (m *mappedFile) Seal() error {
	return errors.Join(m.unmap(), m.File.Truncate(m.at))
}

// Sync implements segmentFile. What is stored in memory is the file's, and goes to
// the disk with it; its times need not.
func (m *mappedFile) Sync() error {
	return m.control(syscall.Fdatasync)
}

// Close implements segmentFile.
func (m *mappedFile) Close() error {
	return errors.Join(m.unmap(), m.File.Close())
}

func (m *mappedFile) unmap() error {
	if m.memory == nil {
		return nil
	}
	err := syscall.Munmap(m.memory)
	m.memory = nil
	return err
}

// control calls f with the file's descriptor, which is not closed meanwhile, until no
// signal interrupts it.
func (m *mappedFile) control(f func(fd int) error) error {
	raw, err := m.SyscallConn()
	if err != nil {
		return err
	}
	for {
		if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
			return cerr
		}
		if err != syscall.EINTR {
			return err
		}
	}
}
