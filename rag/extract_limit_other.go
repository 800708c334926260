//go:build !linux

package rag

// limitProcess leaves the limits to the time that the parent waits and to the
// memory limit of the runtime: systems other than Linux count address space
// differently.
func limitProcess(memory, seconds int64) error { return nil }
