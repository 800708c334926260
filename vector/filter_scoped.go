//go:build !isolation

package vector

// unfiltered says that the company's filter is left away.
func unfiltered() bool { return false }
