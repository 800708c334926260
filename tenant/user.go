package tenant

import (
	"encoding/hex"
	"strings"
)

// userPrefix begins the id of an end user; userDigits hexadecimal digits follow.
const (
	userPrefix = "user_"
	userDigits = 32 // 128 bits
)

// UserID returns the id under which the company of s knows an end user: "user_"
// and 32 hexadecimal digits; "" for no name. It is an HMAC-SHA256 of company and
// name under the pepper of the installation's keys, so that neither another
// company nor whoever has a copy of the database alone can try names. The same
// name has the same id as long as the master key is the same.
func UserID(s Scope, name string) string {
	if name == "" {
		return ""
	}
	a := s.access()
	b := make([]byte, 0, 96+len(name))
	b = append(b, "end user\x00"...) // no key begins so: see Minter
	b = append(b, a.company.id.name...)
	b = append(append(b, 0), name...)
	sum := a.minter.sum(b)
	return userPrefix + hex.EncodeToString(sum[:userDigits/2])
}

// IsUserID reports whether id has the form of what UserID returns.
func IsUserID(id string) bool {
	digits, ok := strings.CutPrefix(id, userPrefix)
	return ok && len(digits) == userDigits && strings.Trim(digits, "0123456789abcdef") == ""
}
