//go:build !linux

package ledger

// openMapped opens the file of a segment to write to it.
func openMapped(path string, _ int64) (segmentFile, error) { return openPlain(path) }
