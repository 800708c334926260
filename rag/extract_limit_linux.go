package rag

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// runtimeRoom is address space that threads and the collector may take beside what
// is parsed: they reserve much and use little of it.
const runtimeRoom = 256 << 20

// limitProcess bounds this process: memory in bytes beyond what the program has
// itself, processor time in seconds, no files to be written, hardly any opened.
func limitProcess(memory, seconds int64) error {
	// Go reserves much more than it uses: only what comes on top is counted.
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	first, _, _ := bytes.Cut(b, []byte(" "))
	pages, err := strconv.ParseInt(string(first), 10, 64)
	if err != nil {
		return err
	}
	for _, l := range []struct {
		what int
		max  uint64
	}{
		{syscall.RLIMIT_AS, uint64(pages*int64(os.Getpagesize()) + memory + runtimeRoom)},
		{syscall.RLIMIT_CPU, uint64(seconds)},
		{syscall.RLIMIT_FSIZE, 0},
		{syscall.RLIMIT_NOFILE, 16},
		{syscall.RLIMIT_CORE, 0},
	} {
		if err := syscall.Setrlimit(l.what, &syscall.Rlimit{Cur: l.max, Max: l.max}); err != nil {
			return fmt.Errorf("cannot limit the process: %w", err)
		}
	}
	return nil
}

// KeepDescriptors has no descriptor inherited by processes that this one starts.
// Those that Go opens never are; but this process may have been given some.
func KeepDescriptors() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("cannot look at the open descriptors: %w", err)
	}
	for _, fd := range fds {
		if n, err := strconv.Atoi(fd.Name()); err == nil && n > 2 {
			syscall.CloseOnExec(n)
		}
	}
	return nil
}
