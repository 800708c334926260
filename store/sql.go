//go:build !isolation

package store

func (st statement) sql() sqlText { return sqlText(st.text) }
