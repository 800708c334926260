package rag

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

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
		{syscall.RLIMIT_AS, uint64(pages*int64(os.Getpagesize()) + memory)},
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
