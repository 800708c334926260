package tenant_test

import (
	"context"
	"encoding/hex"
	"hash/crc32"
	"regexp"
	"strings"
	"testing"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

const (
	digits32 = "0123456789abcdefghjkmnpqrstvwxyz"
	digits62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// withCRC appends the checksum that makes body a well-formed key.
func withCRC(body string) string {
	n := crc32.ChecksumIEEE([]byte(body))
	var sum [6]byte
	for i := len(sum) - 1; i >= 0; i-- {
		sum[i] = digits62[n%62]
		n /= 62
	}
	return body + string(sum[:])
}

// part returns a part of a key: 2 kind, 3 locator, 4 key id, 5 secret and sum.
func part(key string, i int) string { return strings.Split(key, "-")[i] }

// withPart returns key with a part replaced and the checksum made right.
func withPart(key string, i int, to string) string {
	parts := strings.Split(key[:len(key)-6], "-")
	parts[i] = to
	return withCRC(strings.Join(parts, "-"))
}

// wantFault checks the kind and the code of an error.
func wantFault(t testing.TB, err error, kind fault.Kind, code string) {
	t.Helper()
	e := fault.As(err)
	if err == nil || e.Kind != kind || e.Code != code {
		t.Fatalf("got error %v (kind %d, code %q), want kind %d, code %q", err, e.Kind, e.Code, kind, code)
	}
}

func TestKeyForm(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	_, s := w.Company("a", tenant.KeyLive, nil)
	f := func(kind tenant.KeyKind, name string) {
		t.Helper()
		form := regexp.MustCompile(`^sk-bh-` + name + `-` + s.ID().Locator() + `-([0-9a-hjkmnp-tv-z]{12})-[0-9A-Za-z]{49}$`)
		value, k := w.Minter().Mint(s, kind)
		m := form.FindStringSubmatch(value)
		if m == nil || k.ID != "key_"+m[1] || k.Kind != kind || withCRC(value[:len(value)-6]) != value {
			t.Fatalf("key of kind %s: id %q, form %q", kind, k.ID, value[:len("sk-bh-admin-")])
		}
		if want := "sk-bh-" + name + "-..." + value[len(value)-4:]; k.Redacted != want {
			t.Fatalf("redacted: got %q, want %q", k.Redacted, want)
		}
		if again, other := w.Minter().Mint(s, kind); again == value || other.ID == k.ID || other.Hash == k.Hash {
			t.Fatal("the same key twice")
		}
	}
	f(tenant.KeyLive, "live")
	f(tenant.KeyTest, "test")
	f(tenant.KeyAdmin, "admin")
	if !regexp.MustCompile(`^[0-9a-hjkmnp-tv-z]{10}$`).MatchString(s.ID().Locator()) || s.ID().String() != "org-"+s.ID().Locator() {
		t.Errorf("id %q, locator %q", s.ID(), s.ID().Locator())
	}
	value, k := w.Minter().MintOperator()
	if !regexp.MustCompile(`^sk-bh-op-operator-[0-9a-hjkmnp-tv-z]{12}-[0-9A-Za-z]{49}$`).MatchString(value) || k.Kind != tenant.KeyOperator {
		t.Error("the operator's key has another form")
	}
	defer func() {
		if recover() == nil {
			t.Error("a company got an operator key")
		}
	}()
	w.Minter().Mint(s, tenant.KeyOperator)
}

func TestKeyKind(t *testing.T) {
	for _, k := range []tenant.KeyKind{tenant.KeyLive, tenant.KeyTest, tenant.KeyAdmin, tenant.KeyOperator} {
		if got, ok := tenant.ParseKeyKind(k.String()); !ok || got != k {
			t.Errorf("kind %d does not come back from %q", k, k)
		}
	}
	for _, name := range []string{"", "Live", "unknown", "operator"} {
		if _, ok := tenant.ParseKeyKind(name); ok {
			t.Errorf("%q is a kind", name)
		}
	}
	if tenant.KeyKind(0).String() != "unknown" || tenant.KeyKind(9).String() != "unknown" {
		t.Error("a kind that is none has a name")
	}
}

// oneKey is a Source with one company and one key, whatever is asked for.
type oneKey struct {
	tenant.People
	k tenant.Key
}

func (o oneKey) LoadCompany(_ context.Context, _ tenant.ID, c *tenant.Company) error {
	c.Status, c.Projects = tenant.Active, map[string]*tenant.Project{"p": {ID: "p"}}
	return nil
}

func (o oneKey) LoadKey(context.Context, tenant.ID, string) (*tenant.Key, error) { return &o.k, nil }

func (o oneKey) LoadOperatorKey(context.Context, string) (*tenant.Key, error) { return &o.k, nil }

// Keys with hashes from another implementation of CRC-32 and HMAC: what was
// given out once must be valid for ever.
func TestKeyGolden(t *testing.T) {
	f := func(kind tenant.KeyKind, key, hash string) {
		t.Helper()
		k := tenant.Key{ID: "key_" + part(key, 4), Kind: kind, ProjectID: "p"}
		if _, err := hex.Decode(k.Hash[:], []byte(hash)); err != nil {
			t.Fatal(err)
		}
		d := tenant.NewDirectory(oneKey{k: k}, nil, tenant.NewMinter(tenanttest.Pepper), tenant.Options{})
		if kind == tenant.KeyOperator {
			if _, err := d.AuthenticateOperator(t.Context(), []byte(key)); err != nil {
				t.Errorf("%s: %s", kind, err)
			}
			return
		}
		if s, err := d.Authenticate(t.Context(), []byte(key)); err != nil || s.ID().Locator() != part(key, 3) || s.KeyID() != k.ID {
			t.Errorf("%s: %v", kind, err)
		}
	}
	f(tenant.KeyLive, "sk-bh-live-0123456789-000000000001-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg2kCuzI", "c8e654449b77d9658197fe6033e65251f3720924a7524e36e65a15de01a055dc")
	f(tenant.KeyTest, "sk-bh-test-zyxwvtsrqp-000000000001-JKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz2YzDiY", "045caae20f3eeeee45a211280fbcab7f9ef22734741aa88917dc0a2d226afb5b")
	f(tenant.KeyAdmin, "sk-bh-admin-abcdefghjk-mnpqrstvwxyz-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg2LzNtl", "9077bdbc3f59c6799da8d2b7726e97e74d43966089e8c7c5e2222f8e1c9731ae")
	f(tenant.KeyOperator, "sk-bh-op-operator-000000000001-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0n8TDH", "84307c1389af355178b5a765e2550090e385d942286a1d86c276a7e6004bf940")
}

// Every wrong character and every swapped pair is seen by the checksum: nobody
// looks it up, and the answer says that it is a typo.
func TestTypo(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	f := func(key string) {
		t.Helper()
		before := w.Loads()
		try := func(typo string) {
			t.Helper()
			if typo == key {
				return
			}
			_, err := w.Authenticate(t.Context(), []byte(typo))
			wantFault(t, err, fault.Unauthenticated, "invalid_api_key")
			_, err = w.AuthenticateOperator(t.Context(), []byte(typo))
			wantFault(t, err, fault.Unauthenticated, "invalid_api_key")
		}
		for i := range len(key) {
			for c := range 256 {
				try(key[:i] + string([]byte{byte(c)}) + key[i+1:])
			}
			if i > 0 {
				try(key[:i-1] + key[i:i+1] + key[i-1:i] + key[i+1:])
				try(key[:i])
			}
			try(key[:i] + key[i+1:])            // one left out
			try(key[:i] + key[i:i+1] + key[i:]) // one twice
		}
		try(key + key)
		try(" " + key)
		try(strings.ToUpper(key))
		try(strings.ToLower(key))
		if n := w.Loads() - before; n != 0 {
			t.Fatalf("%d look-ups for typing errors", n)
		}
	}
	live, s := w.Company("a", tenant.KeyLive, nil)
	admin, _ := w.AddKey(s, tenant.KeyAdmin, "")
	f(live)
	f(admin)
	f(w.AddOperator())
}

// A right checksum does not make a right form.
func TestForm(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	key, _ := w.Company("a", tenant.KeyLive, nil)
	op := w.AddOperator()
	before := w.Loads()
	f := func(key string) {
		t.Helper()
		_, err := w.Authenticate(t.Context(), []byte(key))
		wantFault(t, err, fault.Unauthenticated, "invalid_api_key")
		_, err = w.AuthenticateOperator(t.Context(), []byte(key))
		wantFault(t, err, fault.Unauthenticated, "invalid_api_key")
	}
	for _, kind := range []string{"", "Live", "LIVE", "liv", "livee", "operator", "unknown", "lıve"} {
		f(withPart(key, 2, kind))
	}
	locator := part(key, 3)
	for _, l := range []string{"", "operator", locator[1:], locator + "0", strings.ToUpper(locator[:9]) + "A", locator[:9] + "i", locator[:9] + "l", locator[:9] + "o", locator[:9] + "u", locator[:9] + "\x00", locator[:9] + "/"} {
		f(withPart(key, 3, l))
	}
	f(withPart(op, 3, locator))
	f(withPart(op, 3, "OPERATOR"))
	id := part(key, 4)
	for _, i := range []string{"", id[1:], id + "0", id[:11] + "A", id[:11] + "i", id[:11] + "%", id[:11] + "\n"} {
		f(withPart(key, 4, i))
	}
	for _, secret := range []string{"", strings.Repeat("a", 42), strings.Repeat("a", 44), strings.Repeat("a", 42) + "_", strings.Repeat("a", 42) + "-", strings.Repeat("a", 42) + "\xff"} {
		f(withCRC(key[:len(key)-49] + secret))
	}
	f(withCRC("sk-bx" + key[5:len(key)-6]))
	f("sk-proj-" + strings.Repeat("a", 120))
	f(strings.Repeat("sk-bh-live-", 10_000))
	f("sk-bh-")
	if n := w.Loads() - before; n != 0 {
		t.Fatalf("%d look-ups", n)
	}

	_, err := w.Authenticate(t.Context(), nil)
	wantFault(t, err, fault.Unauthenticated, "")
	_, err = w.AuthenticateOperator(t.Context(), nil)
	wantFault(t, err, fault.Unauthenticated, "")
}

func TestMinterShortPepper(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	tenant.NewMinter(make([]byte, 31))
}

// A key proves itself to the installation that made it only.
func TestOtherPepper(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	key, _ := w.Company("a", tenant.KeyLive, nil)
	other := append([]byte(nil), tenanttest.Pepper...)
	other[31]++
	d := tenant.NewDirectory(w, w, tenant.NewMinter(other), tenant.Options{})
	_, err := d.Authenticate(t.Context(), []byte(key))
	wantFault(t, err, fault.Unauthenticated, "invalid_api_key")
}
