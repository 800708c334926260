package openai

import (
	"crypto/rand"
	"strconv"

	"bulkhead/fault"
)

// idLength random characters of 62 are 142 bits: ids do not collide and cannot be
// guessed.
const idLength = 24

// maxCursor bounds the ids in "after" and "before", in bytes.
const maxCursor = 256

// NewID returns prefix followed by 24 random letters and digits.
func NewID(prefix string) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	const fair = 256 - 256%len(alphabet) // bytes from here on would favour the first letters
	id := make([]byte, 0, 64)
	id = append(id, prefix...)
	var random [2 * idLength]byte
	for {
		rand.Read(random[:]) // never fails: crypto/rand ends the program instead
		for _, b := range random {
			if int(b) >= fair {
				continue
			}
			id = append(id, alphabet[int(b)%len(alphabet)])
			if len(id) == len(prefix)+idLength {
				return string(id)
			}
		}
	}
}

// List is a page of objects in the form of the API. FirstID and LastID are null
// when it is empty.
type List[T any] struct {
	Object  string  `json:"object"`
	Data    []T     `json:"data"`
	FirstID *string `json:"first_id"`
	LastID  *string `json:"last_id"`
	HasMore bool    `json:"has_more"`
}

// NewList returns the List of items, which it keeps. id returns an item's id; more
// says that there are items after these.
func NewList[T any](items []T, id func(T) string, more bool) List[T] {
	l := List[T]{Object: "list", Data: items, HasMore: more}
	if len(items) == 0 {
		l.Data = []T{} // null breaks clients that loop over it
		return l
	}
	first, last := id(items[0]), id(items[len(items)-1])
	l.FirstID, l.LastID = &first, &last
	return l
}

// Page is which part of a list a client asks for.
type Page struct {
	After  string // the id to go on behind, in the order of the list; "" is the start
	Before string // the id to stop in front of; never set together with After
	Limit  int    // items, at least 1
	Desc   bool   // newest first, which is the default of the API
}

// ParsePage reads a Page from a query, whose values get returns ("" if absent). def
// and limit are the default and the largest number of items. Errors are
// *fault.Error and name the parameter.
func ParsePage(get func(string) string, def, limit int) (Page, error) {
	p := Page{After: get("after"), Before: get("before"), Limit: def, Desc: true}
	if len(p.After) > maxCursor {
		return Page{}, fault.Field("after", "after is longer than %d bytes", maxCursor)
	}
	if len(p.Before) > maxCursor {
		return Page{}, fault.Field("before", "before is longer than %d bytes", maxCursor)
	}
	if p.After != "" && p.Before != "" {
		return Page{}, fault.Field("before", "after and before cannot be used together")
	}
	if s := get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > limit {
			return Page{}, fault.Field("limit", "limit must be an integer from 1 to %d", limit)
		}
		p.Limit = n
	}
	switch get("order") {
	case "", "desc":
	case "asc":
		p.Desc = false
	default:
		return Page{}, fault.Field("order", `order must be "asc" or "desc"`)
	}
	return p, nil
}
