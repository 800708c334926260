//go:build isolation

package vector

import "os"

// unfiltered says that the company's filter is left away, so that it can be seen
// that the suites notice.
func unfiltered() bool { return os.Getenv("BULKHEAD_UNFILTERED") == "1" }
