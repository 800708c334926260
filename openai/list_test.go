package openai

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"bulkhead/fault"
)

func TestNewID(t *testing.T) {
	const ids = 10_000
	form := regexp.MustCompile(`^file-[0-9A-Za-z]{24}$`)
	seen := map[string]bool{}
	used := map[rune]int{}
	for range ids {
		id := NewID("file-")
		if !form.MatchString(id) || seen[id] {
			t.Fatalf("id %q has the wrong form or came before", id)
		}
		seen[id] = true
		for _, c := range id[len("file-"):] {
			used[c]++
		}
	}
	// A byte taken modulo 62 makes eight letters 21 % more frequent; 12 % is
	// more than seven standard deviations of a fair choice.
	mean := ids * idLength / 62
	for c, n := range used {
		if n < mean*88/100 || n > mean*112/100 {
			t.Errorf("%q came %d times, the mean is %d", c, n, mean)
		}
	}
	equal(t, "letters used", len(used), 62)
}

func TestNewList(t *testing.T) {
	f := func(items []string, more bool, want string) {
		t.Helper()
		got, err := json.Marshal(NewList(items, strings.ToUpper, more))
		if err != nil || string(got) != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
	f(nil, false, `{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":false}`)
	f([]string{"a"}, false, `{"object":"list","data":["a"],"first_id":"A","last_id":"A","has_more":false}`)
	f([]string{"a", "b"}, true, `{"object":"list","data":["a","b"],"first_id":"A","last_id":"B","has_more":true}`)
}

func TestParsePage(t *testing.T) {
	get := func(query map[string]string) func(string) string {
		return func(k string) string { return query[k] }
	}
	f := func(query map[string]string, want Page) {
		t.Helper()
		if got, err := ParsePage(get(query), 20, 100); err != nil || got != want {
			t.Errorf("%v is %+v, %v; want %+v", query, got, err, want)
		}
	}
	f(nil, Page{Limit: 20, Desc: true})
	f(map[string]string{"after": "a", "limit": "1", "order": "asc"}, Page{After: "a", Limit: 1})
	f(map[string]string{"before": "b", "limit": "100", "order": "desc"}, Page{Before: "b", Limit: 100, Desc: true})

	bad := func(query map[string]string, param string) {
		t.Helper()
		_, err := ParsePage(get(query), 20, 100)
		if !fault.Is(err, fault.Invalid) || fault.As(err).Param != param {
			t.Errorf("%v is %v, want Invalid for %s", query, err, param)
		}
	}
	for _, limit := range []string{"0", "-1", "101", "x", "1.5", "99999999999999999999", " 1"} {
		bad(map[string]string{"limit": limit}, "limit")
	}
	bad(map[string]string{"order": "up"}, "order")
	bad(map[string]string{"after": strings.Repeat("a", 257)}, "after")
	bad(map[string]string{"before": strings.Repeat("a", 257)}, "before")
	bad(map[string]string{"after": "a", "before": "b"}, "before")
}
