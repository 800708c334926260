package tenant

import (
	"errors"
	"strings"
)

// maxPath is how deep an expression may go into a token.
const maxPath = 8

var errExpression = errors.New(`an expression is a path into the token, as in assertion.sub or assertion["kubernetes.io"].namespace`)

// ParseExpression returns the names on the way to the part of a token that an
// expression means. It is the part of CEL, which OpenAI has here, that names one
// value: assertion, then .name or ["name"] or ['name'] up to 8 times.
func ParseExpression(text string) (path []string, err error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), "assertion")
	if !ok {
		return nil, errExpression
	}
	for rest != "" {
		var name string
		if name, rest, ok = step(rest); !ok || len(path) == maxPath {
			return nil, errExpression
		}
		path = append(path, name)
	}
	if len(path) == 0 {
		return nil, errExpression
	}
	return path, nil
}

// step cuts the first step off a path.
func step(s string) (name, rest string, ok bool) {
	if s, ok = strings.CutPrefix(s, "."); ok {
		n := 0
		for n < len(s) && identifier(s[n], n > 0) {
			n++
		}
		return s[:n], s[n:], n > 0
	}
	for _, quote := range []string{`"`, `'`} {
		inner, is := strings.CutPrefix(s, "["+quote)
		if !is {
			continue
		}
		name, rest, ok = strings.Cut(inner, quote+"]")
		return name, rest, ok && name != "" && !strings.ContainsAny(name, `"'\`+"\x00\n")
	}
	return "", "", false
}

func identifier(c byte, later bool) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || later && '0' <= c && c <= '9'
}
