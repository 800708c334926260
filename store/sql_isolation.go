//go:build isolation

package store

import (
	"os"
	"regexp"
	"slices"
	"strings"
)

var predicate = regexp.MustCompile(`\b(\w+\.)?company_id = \$1`)

// unprotected says that Open takes a database without row-level security, so
// that the statements can be tested by themselves.
func unprotected() bool { return os.Getenv("BULKHEAD_UNPROTECTED") == "1" }

// sql returns the text without its company predicate if BULKHEAD_UNSCOPED names
// the statement (several with commas, all with "*"). The suite in storetest must
// then fail: a rule whose loss nobody notices is no rule.
func (st statement) sql() sqlText {
	unscoped := os.Getenv("BULKHEAD_UNSCOPED")
	if unscoped != "*" && !slices.Contains(strings.Split(unscoped, ","), st.name) {
		return sqlText(st.text)
	}
	return sqlText(predicate.ReplaceAllString(st.text, "($$1 = $$1)")) // the arguments stay as many
}
