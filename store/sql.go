//go:build !isolation

package store

// unprotected says that Open takes a database without row-level security.
func unprotected() bool { return false }

func (st statement) sql() sqlText { return sqlText(st.text) }
