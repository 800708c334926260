package config

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Problem is one thing that is wrong.
type Problem struct {
	// Key is the dotted path of a key ("upstream.connect"), the name of an
	// unknown BULKHEAD_ variable, or the name of a file that cannot be read.
	Key string
	// Message says what would be right, and where the wrong value came from if
	// that is known. It never holds a secret.
	Message string
}

// Problems is everything that is wrong, as one error. It is never empty.
type Problems []Problem

// Error returns one line for each problem.
func (p *Problems) Error() string {
	var b strings.Builder
	b.WriteString("the configuration has ")
	if len(*p) == 1 {
		b.WriteString("a problem:")
	} else {
		fmt.Fprintf(&b, "%d problems:", len(*p))
	}
	for _, one := range *p {
		b.WriteString("\n  " + one.Key + ": " + one.Message)
	}
	return b.String()
}

func (p *Problems) add(key, format string, a ...any) {
	*p = append(*p, Problem{key, fmt.Sprintf(format, a...)})
}

// err returns p as an error, or nil if nothing is wrong.
func (p *Problems) err() error {
	if len(*p) == 0 {
		return nil
	}
	return p
}

// shown returns a name from outside in a form that is safe to print on one
// line: short, and quoted if it is not plain.
func shown(name string) string {
	const most = 80
	if len(name) > most {
		cut := most
		for !utf8.RuneStart(name[cut]) {
			cut--
		}
		name = name[:cut] + "…"
	}
	quoted := strconv.Quote(name)
	if name != "" && quoted == `"`+name+`"` && !strings.ContainsAny(name, " :,()") {
		return name
	}
	return quoted
}

// nearest returns the name that name was probably meant to be, or "".
func nearest(name string, names []string) string {
	best, found := 3, ""
	if len(name) > 100 {
		return ""
	}
	for _, n := range names {
		if d := distance(name, n); d < best && d*2 < len(n) {
			best, found = d, n
		}
	}
	return found
}

// distance is the number of bytes to insert, drop or change to get from a to b
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			change := before
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, above+1, row[j]+1)
			before = above
		}
	}
	return row[len(b)]
}
