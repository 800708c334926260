//go:build !linux

package rag

// limitProcess leaves the limits to the time that the parent waits and to the
// memory limit of the runtime: systems other than Linux count address space
// differently.
func limitProcess(memory, seconds int64) error { return nil }

// KeepDescriptors leaves it to whoever starts this process to pass on no descriptor
// that is to be inherited.
func KeepDescriptors() error { return nil }
