package store

import (
	"math"
	"slices"

	"bulkhead/openai"
)

// maxPage is the most rows of a list that are read at once.
const maxPage = 1000

// list is a list that is read in pages, in either direction. The order is by a
// time and then the id, from an older end to a newer one; see also byID.
//
// cursor finds the time of the row with the id $2. ascending and descending
// find the rows strictly between two places: $2 and $3 are the time and id of
// the older, $4 and $5 of the newer, $6 is how many rows at most. What narrows
// the list follows: from $3 in cursor, from $7 in the others. (An operator's
// list has no company, so its numbers are one less.)
type list[S anyStatement] struct {
	cursor, ascending, descending S
}

const (
	between  = ` AND (created_at, id) > ($2, $3) AND (created_at, id) < ($4, $5)`
	oldToNew = ` ORDER BY created_at, id LIMIT $6`
	newToOld = ` ORDER BY created_at DESC, id DESC LIMIT $6`
)

// place is where a row stands in a list.
type place struct {
	at int64
	id string
}

// order says where the arguments of a list put its two places.
type order func(older, newer place) []any

func byTime(older, newer place) []any { return []any{older.at, older.id, newer.at, newer.id} }

// byID is the order of rows whose ids begin with the time: $2 is the older id,
// $3 the newer, $4 how many rows at most.
func byID(older, newer place) []any { return []any{older.id, newer.id} }

// lastID comes after every id, by bytes.
const lastID = "\U0010FFFF"

// readPage reads one page of l. within narrows the cursor and the list, also
// the list alone. A cursor that is not there is errNoRow.
func readPage[T any, S anyStatement](t *tx, l list[S], p openai.Page, scan func(row) (T, error), within, also []any) ([]T, bool, error) {
	return readPageBy(byTime, t, l, p, scan, within, also)
}

func readPageBy[T any, S anyStatement](by order, t *tx, l list[S], p openai.Page, scan func(row) (T, error), within, also []any) ([]T, bool, error) {
	limit := p.Limit
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	old, young := place{math.MinInt64, ""}, place{math.MaxInt64, lastID}
	after, before := &old, &young
	if p.Desc {
		after, before = before, after
	}
	for _, c := range []struct {
		id string
		to *place
	}{{p.After, after}, {p.Before, before}} {
		if c.id == "" {
			continue
		}
		c.to.id = c.id
		if err := t.one(l.cursor, []any{&c.to.at}, append([]any{c.id}, within...)...); err != nil {
			return nil, false, err
		}
	}
	// The page before a row ends with the row's neighbour, so it is read from
	// there backwards and turned round.
	backwards := p.Before != "" && p.After == ""
	st := l.ascending
	if p.Desc != backwards {
		st = l.descending
	}
	args := append(by(old, young), limit+1)
	args = append(append(args, within...), also...)
	var items []T
	err := t.query(st, func(r row) error {
		item, err := scan(r)
		items = append(items, item)
		return err
	}, args...)
	if err != nil {
		return nil, false, err
	}
	more := len(items) > limit
	if more {
		items = items[:limit]
	}
	if backwards {
		slices.Reverse(items)
	}
	return items, more, nil
}
