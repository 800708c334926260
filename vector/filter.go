package vector

import (
	"strconv"

	"bulkhead/tenant"
)

// filter builds every expression that is sent to Milvus: for searching,
// counting and deleting alike. It begins with the company and takes ids and
// numbers that were checked, never a caller's text.
type filter struct{ b []byte }

// of begins a filter with the company of s. There is no other way to begin one.
func of(s tenant.Scope) *filter {
	company := s.ID().String()
	if !id(company) {
		panic("BUG: the id of a company is not of the form of one")
	}
	f := &filter{}
	if unfiltered() {
		f.b = append(f.b, "chunk >= 0"...)
		return f
	}
	f.b = append(append(append(f.b, `company == "`...), company...), '"')
	return f
}

func (f *filter) space(sp Space) *filter { return f.is("space", sp.key()) }

func (f *filter) store(id string) *filter { return f.is("store", id) }
func (f *filter) file(id string) *filter  { return f.is("file", id) }

func (f *filter) stores(all []Store) *filter {
	ids := make([]string, len(all))
	for i := range all {
		ids[i] = all[i].ID
	}
	return f.in("store", ids)
}

func (f *filter) files(ids []string) *filter { return f.in("file", ids) }

func (f *filter) is(field, value string) *filter {
	mustBeID(value)
	f.b = append(append(append(append(append(f.b, " && "...), field...), ` == "`...), value...), '"')
	return f
}

// from narrows to chunks from an index on; 0 does not narrow.
func (f *filter) from(chunk int) *filter {
	if chunk > 0 {
		f.b = strconv.AppendInt(append(f.b, " && chunk >= "...), int64(chunk), 10)
	}
	return f
}

// in narrows to the values, of which there is at least one: an empty list is no
// filter at all to some servers.
func (f *filter) in(field string, values []string) *filter {
	if len(values) == 0 {
		panic("BUG: a filter without values")
	}
	f.b = append(append(append(f.b, " && "...), field...), " in ["...)
	for i, v := range values {
		mustBeID(v)
		if i > 0 {
			f.b = append(f.b, ',')
		}
		f.b = strconv.AppendQuote(f.b, v)
	}
	f.b = append(f.b, ']')
	return f
}

func mustBeID(s string) {
	if !id(s) {
		panic("BUG: an unchecked id in a filter")
	}
}

func (f *filter) String() string { return string(f.b) }
