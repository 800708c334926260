package tenant

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"bulkhead/fault"
)

// Bounds of a token. Nothing of one that is longer is looked at.
const (
	maxToken     = 8 << 10        // bytes
	maxDepth     = 8              // of objects and lists in it
	maxValues    = 512            // in its header or its claims
	maxAudiences = 16             // in "aud"
	maxText      = 512            // bytes of issuer, subject, audience and key id
	maxLife      = 24 * time.Hour // from "iat" to "exp"
	skew         = time.Minute    // that a clock may be wrong by
)

// algorithms are the signatures that are taken: those with a public key.
var algorithms = map[string]jwt.SigningMethod{
	"RS256": jwt.SigningMethodRS256, "RS384": jwt.SigningMethodRS384, "RS512": jwt.SigningMethodRS512,
	"PS256": jwt.SigningMethodPS256, "PS384": jwt.SigningMethodPS384, "PS512": jwt.SigningMethodPS512,
	"ES256": jwt.SigningMethodES256, "ES384": jwt.SigningMethodES384, "ES512": jwt.SigningMethodES512,
	"EdDSA": jwt.SigningMethodEdDSA,
}

// token is a JWT (RFC 7519) as it was read. Nothing of it is proved.
type token struct {
	signed        string // what the signature is over
	signature     []byte
	alg, kid      string
	claims        map[string]any
	issuer        string
	subject       string
	audience      []string
	exp, iat, nbf time.Time // nbf is zero if it is not there
}

// isToken reports whether b has the form of a JWT, which no key has.
func isToken(b []byte) bool {
	return bytes.Count(b, []byte{'.'}) == 2 && !bytes.HasPrefix(b, []byte(keyPrefix))
}

// badToken refuses a token for what stands in it: whoever holds it can see that
// too. What depends on a company's policy is errNotTrusted for all.
func badToken(format string, a ...any) *fault.Error {
	return fault.New(fault.Unauthenticated, "The token is refused: "+format, a...).WithCode("invalid_token")
}

var (
	errLongToken   = badToken("it is longer than %d bytes.", maxToken)
	errNotTrusted  = fault.New(fault.Unauthenticated, "No identity provider of the company that the token's audience names has issued this token.").WithCode("invalid_token")
	errOldToken    = fault.New(fault.Unauthenticated, "The token has expired.").WithCode("expired_token")
	errNoRule      = fault.New(fault.Forbidden, "The token is valid, but no federation rule lets it in.").WithCode("no_federation_rule")
	errNoAudiences = fault.New(fault.Unavailable, "The gateway cannot see at the moment whose audience this is.")
	errNoKeys      = fault.New(fault.Unavailable, "The keys of the token's identity provider cannot be had at the moment.").WithCode("identity_provider_unavailable")
)

var rawURL = base64.RawURLEncoding.Strict()

// parseToken reads a token without proving anything.
func parseToken(b []byte) (*token, error) {
	if len(b) > maxToken {
		return nil, errLongToken
	}
	text := string(b)
	i, j := strings.IndexByte(text, '.'), strings.LastIndexByte(text, '.')
	if i < 0 || i == j {
		return nil, badToken("it is not a JWT.")
	}
	header, err := readPart(text[:i])
	if err != nil {
		return nil, badToken("its header %s.", err)
	}
	t := &token{signed: text[:j]}
	if err := t.readHeader(header); err != nil {
		return nil, err
	}
	if t.claims, err = readPart(text[i+1 : j]); err != nil {
		return nil, badToken("its claims %s.", err)
	}
	if t.signature, err = rawURL.DecodeString(text[j+1:]); err != nil || len(t.signature) == 0 {
		return nil, badToken("its signature is no base64url.")
	}
	return t, t.readClaims()
}

// readHeader takes what names the key and the way it was used. A header that
// brings its own key, or asks for what is not understood here, is refused.
func (t *token) readHeader(h map[string]any) error {
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"} {
		if _, there := h[name]; there {
			return badToken("its header must not have %q.", name)
		}
	}
	alg, _ := h["alg"].(string)
	if algorithms[alg] == nil {
		return badToken("its algorithm must be one of RS, PS or ES with 256, 384 or 512, or EdDSA.")
	}
	t.alg = alg
	if t.kid, _ = h["kid"].(string); t.kid == "" || len(t.kid) > maxText {
		return badToken("its header must have a kid of at most %d bytes.", maxText)
	}
	if typ, there := h["typ"]; there {
		name, _ := typ.(string)
		if name = strings.TrimPrefix(strings.ToLower(name), "application/"); name != "jwt" && name != "at+jwt" && name != "jose" {
			return badToken("its type must be JWT, at+jwt or JOSE.")
		}
	}
	return nil
}

func (t *token) readClaims() error {
	var ok bool
	for _, c := range []struct {
		name string
		to   *string
	}{{"iss", &t.issuer}, {"sub", &t.subject}} {
		if *c.to, ok = t.claims[c.name].(string); !ok || *c.to == "" || len(*c.to) > maxText {
			return badToken("it must have %q of 1 to %d bytes.", c.name, maxText)
		}
	}
	switch aud := t.claims["aud"].(type) {
	case string:
		t.audience = []string{aud}
	case []any:
		for _, v := range aud {
			s, _ := v.(string)
			t.audience = append(t.audience, s)
		}
	}
	if n := len(t.audience); n == 0 || n > maxAudiences || slices.ContainsFunc(t.audience, func(a string) bool { return a == "" || len(a) > maxText }) {
		return badToken(`it must have "aud", one or up to %d of them, of 1 to %d bytes each.`, maxAudiences, maxText)
	}
	for _, c := range []struct {
		name     string
		to       *time.Time
		required bool
	}{{"exp", &t.exp, true}, {"iat", &t.iat, true}, {"nbf", &t.nbf, false}} {
		v, there := t.claims[c.name]
		if !there && !c.required {
			continue
		}
		n, _ := v.(json.Number)
		at, err := n.Float64()
		if err != nil || at < 0 || at > 1e11 {
			return badToken("it must have %q, a time in seconds.", c.name)
		}
		*c.to = time.UnixMicro(int64(at * 1e6))
	}
	if life := t.exp.Sub(t.iat); life <= 0 || life > maxLife {
		return badToken(`from "iat" to "exp" must be at most %d hours.`, int(maxLife.Hours()))
	}
	return nil
}

// until is when the token ends, with what a clock may be wrong by.
func (t *token) until() time.Time { return t.exp.Add(skew) }

// checkTime refuses a token that is not valid yet or any more.
func (t *token) checkTime(now time.Time) error {
	switch {
	case !now.Before(t.until()):
		return errOldToken
	case t.iat.After(now.Add(skew)) || t.nbf.After(now.Add(skew)):
		return badToken("it is not valid yet.")
	}
	return nil
}

// Why a part of a token, or a set of keys, is not read. They are put together
// with what it is.
var (
	errEncoding  = errors.New("is no base64url without padding")
	errJSON      = errors.New("is not one JSON object")
	errTwice     = errors.New("has a name twice")
	errTooMuch   = errors.New("has too much in it")
	errCharacter = errors.New("has text that is no Unicode")
)

func readPart(text string) (map[string]any, error) {
	b, err := rawURL.DecodeString(text)
	if err != nil {
		return nil, errEncoding
	}
	return readObject(b, maxValues)
}

// readObject reads one JSON object strictly: names are told apart by case, none
// comes twice, and nothing is replaced by something else. What two readers read
// differently is read by neither.
func readObject(b []byte, values int) (map[string]any, error) {
	if !utf8.Valid(b) || bytes.ContainsRune(b, utf8.RuneError) {
		return nil, errCharacter
	}
	r := objectReader{d: json.NewDecoder(bytes.NewReader(b)), left: values}
	r.d.UseNumber()
	v, err := r.value(0)
	if err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if _, err := r.d.Token(); !ok || err != io.EOF {
		return nil, errJSON
	}
	return object, nil
}

type objectReader struct {
	d    *json.Decoder
	left int // values
}

func (r *objectReader) value(depth int) (any, error) {
	if r.left--; r.left < 0 || depth > maxDepth {
		return nil, errTooMuch
	}
	t, err := r.d.Token()
	if err != nil {
		return nil, errJSON
	}
	switch t {
	case json.Delim('{'):
		object := map[string]any{}
		for r.d.More() {
			name, err := r.d.Token()
			if err != nil {
				return nil, errJSON
			}
			key := name.(string) // of an object, a name comes first
			if strings.ContainsRune(key, utf8.RuneError) {
				return nil, errCharacter
			}
			if _, there := object[key]; there {
				return nil, errTwice
			}
			if object[key], err = r.value(depth + 1); err != nil {
				return nil, err
			}
		}
		return object, r.end()
	case json.Delim('['):
		list := []any{}
		for r.d.More() {
			v, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, r.end()
	}
	// A lone surrogate is read as U+FFFD: two texts would be one.
	if s, is := t.(string); is && strings.ContainsRune(s, utf8.RuneError) {
		return nil, errCharacter
	}
	return t, nil
}

func (r *objectReader) end() error {
	if _, err := r.d.Token(); err != nil {
		return errJSON
	}
	return nil
}
