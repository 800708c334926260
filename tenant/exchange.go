package tenant

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"bulkhead/fault"
)

// maxExchange is the longest life of a key that is given out for a token. It
// never outlives the token.
const maxExchange = time.Hour

// A key given out for a token is sk-bh-tmp-<locator>-<base64url>. What is encoded
// says who it is for and until when, and ends with an HMAC over all before it:
// every gateway can prove it, and none has to store it.
//
//	1 byte   version
//	8 bytes  when it ends, in seconds since 1970
//	8 bytes  revision of the rule and its provider
//	16 bytes the end user
//	…        id of the rule
//	32 bytes HMAC-SHA256
const (
	exchangedPrefix  = keyPrefix + "tmp-"
	exchangedVersion = 1
	exchangedFixed   = 1 + 8 + 8 + 16
	maxExchanged     = 512 // bytes of the whole
)

// Exchange is what a token is to be exchanged for. Both ids are required: a token
// that was meant for one account is no key of another.
type Exchange struct {
	Token     []byte
	Provider  string // id
	AccountID string // of the service account
}

// Exchanged is a key that was given out for a token.
type Exchanged struct {
	Value string        // shown once
	For   time.Duration // that it is valid, in whole seconds
	Scope Scope
}

// Exchange gives out a key of at most an hour for a token. Errors are those of
// Authenticate for the token.
func (d *Directory) Exchange(ctx context.Context, e Exchange) (x Exchanged, err error) {
	defer func() {
		if err != nil {
			d.logins.refused.Add(1)
		}
	}()
	if d.tooStale() {
		return x, errStale
	}
	if !isToken(e.Token) {
		return x, badToken("it is not a JWT.")
	}
	t, kn, audience, err := d.claimed(ctx, e.Token)
	if err != nil {
		return x, err
	}
	// What is remembered as refused was for another account, perhaps; so here the
	// ids are part of what is remembered.
	h := sha256.New()
	h.Write(e.Token)
	h.Write([]byte("\x00" + e.Provider + "\x00" + e.AccountID))
	sum := [sha256.Size]byte(h.Sum(nil))
	now := d.now()
	if err := kn.ofTokens().refusal(&sum, now); err != nil {
		return x, err
	}
	g, p, err := d.prove(ctx, t, kn, audience, e.AccountID)
	if err == nil && (p.ID != e.Provider || e.AccountID == "") {
		err = errNoRule
	}
	if err != nil {
		if !fault.Is(err, fault.Unavailable) {
			kn.ofTokens().refuse(&sum, err, now.Add(d.o.UnknownFor), d.o.KeysPerCompany)
		}
		return x, err
	}
	until := time.Unix(now.Add(min(maxExchange, g.until.Sub(now))).Unix(), 0) // what the key can say
	life := until.Sub(now).Truncate(time.Second)
	if life <= 0 {
		return x, errOldToken
	}
	d.logins.exchanged.Add(1)
	return Exchanged{d.giveOut(g.a, p, until), life, Scope{g.a}}, nil
}

// giveOut writes the key for what a stands for.
func (d *Directory) giveOut(a *access, p *IdentityProvider, until time.Time) string {
	b := make([]byte, 0, exchangedFixed+len(a.bearer.rule.ID)+sha256.Size)
	b = append(b, exchangedVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(until.Unix()))
	rev := revision(p, a.bearer.rule)
	b = append(b, rev[:]...)
	user, err := hex.DecodeString(strings.TrimPrefix(a.bearer.user, userPrefix))
	if err != nil || len(user) != userDigits/2 {
		panic("BUG: a token without an end user")
	}
	b = append(b, user...)
	b = append(b, a.bearer.rule.ID...)
	sum := d.exchangedSum(a.company.id, b)
	return exchangedPrefix + a.company.id.Locator() + "-" + base64.RawURLEncoding.EncodeToString(append(b, sum[:]...))
}

// exchangedSum is the HMAC of a key that is given out. No other use of the pepper
// begins so: see UserID.
func (d *Directory) exchangedSum(company ID, b []byte) [sha256.Size]byte {
	text := append([]byte("exchanged key\x00"), company.name...)
	return d.minter.sum(append(append(text, 0), b...))
}

func isExchanged(b []byte) bool { return bytes.HasPrefix(b, []byte(exchangedPrefix)) }

// given is what a key says that was given out. Nothing of it is proved.
type given struct {
	locator []byte
	text    []byte // what is encoded, without the HMAC
	sum     []byte
}

func parseExchanged(b []byte) (g given, ok bool) {
	rest := b[len(exchangedPrefix):]
	if len(b) > maxExchanged || len(rest) < locatorLen+2 || rest[locatorLen] != '-' || !validLocator(rest[:locatorLen]) {
		return g, false
	}
	text, err := rawURL.DecodeString(string(rest[locatorLen+1:]))
	if err != nil || len(text) <= exchangedFixed+sha256.Size || text[0] != exchangedVersion {
		return g, false
	}
	end := len(text) - sha256.Size
	return given{rest[:locatorLen], text[:end], text[end:]}, true
}

// authenticateExchanged returns the Scope of a key that was given out.
func (d *Directory) authenticateExchanged(ctx context.Context, b []byte) (Scope, error) {
	if d.tooStale() {
		return Scope{}, errStale
	}
	if len(b) > maxExchanged {
		return Scope{}, errTypo
	}
	sum := sha256.Sum256(b)
	if s, ok := d.warm(&sum); ok {
		return s, nil
	}
	g, ok := parseExchanged(b)
	if !ok {
		return Scope{}, errTypo
	}
	kn, err := d.known(ctx, g.locator)
	if err != nil {
		return Scope{}, err
	}
	if kn == nil || !d.provesExchanged(kn.company.id, &g) {
		return Scope{}, errBadKey
	}
	// The key is proved. Only now may the answer depend on the company.
	if kn.company.Status != Active {
		return Scope{}, errSuspended
	}
	until := time.Unix(int64(binary.BigEndian.Uint64(g.text[1:])), 0)
	if !d.now().Before(until) {
		return Scope{}, errExpired
	}
	p, r := kn.company.rule(string(g.text[exchangedFixed:]))
	if r == nil || revision(p, r) != [8]byte(g.text[9:17]) {
		return Scope{}, errRuleChanged
	}
	a, err := d.actAs(kn.company, p, r, until)
	if err != nil {
		return Scope{}, err
	}
	a.bearer.user = userPrefix + hex.EncodeToString(g.text[17:exchangedFixed])
	d.logins.keep(&sum, &login{kn: kn, a: a, until: until}, d.o.KeysPerCompany)
	return Scope{a}, nil
}

var errRuleChanged = fault.New(fault.Unauthenticated, "The federation rule of this key, or its identity provider, was changed or is disabled. Exchange a token anew.").WithCode("invalid_api_key")

func (d *Directory) provesExchanged(company ID, g *given) bool {
	want := d.exchangedSum(company, g.text)
	return subtle.ConstantTimeCompare(want[:], g.sum) == 1
}
