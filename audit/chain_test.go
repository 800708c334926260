package audit

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

var testKey = []byte("a key for the chains of the tests")

func testEvent() Event {
	return Event{ID: "audit_log-1", Type: ProjectCreated, At: time.UnixMicro(1_790_000_000_123_456), Actor: "key:k", ProjectID: "p", Object: "o", Count: 1, Detail: "{}"}
}

// TestHashStays pins the form of the hash: chains that are stored depend on it.
// The figures were made by another program, of the description at Chain.Add.
func TestHashStays(t *testing.T) {
	c := NewChain(testKey)
	e := testEvent()
	one := c.Add("org-a", Head{}, &e)
	two := c.Add("org-a", one, &e)
	for _, f := range []struct{ got, want string }{
		{one.String(), "1:36b589177dd3455f2c7ee4143d74bc10c4afca1479feb5bbf94ee18e95bb42cf"},
		{two.String(), "2:c58a26b51abcae481f3c8612567e6b8ecdf940b5c23a06c587fd2bf74e2e465f"},
		{c.Seal("org-a", two).String(), "08bb928716708863b0b6803f5cd005b32f0cd5b8f1e744c14b8b6344820a9f8b"},
	} {
		if f.got != f.want {
			t.Errorf("got %s, want %s", f.got, f.want)
		}
	}
}

// TestHashTells changes every field, and moves text from one to the next.
func TestHashTells(t *testing.T) {
	c := NewChain(testKey)
	seen := map[Hash]string{}
	f := func(what string, h Hash) {
		t.Helper()
		if before, there := seen[h]; there {
			t.Errorf("%s has the hash of %s", what, before)
		}
		seen[h] = what
	}
	e := testEvent()
	f("the row", c.Add("org-a", Head{}, &e).Hash)
	f("another chain", c.Add("org-b", Head{}, &e).Hash)
	f("another place", c.Add("org-a", Head{Count: 1}, &e).Hash)
	f("another row before", c.Add("org-a", Head{Hash: Hash{1}}, &e).Hash)
	f("another key", NewChain([]byte(strings.Repeat("x", 32))).Add("org-a", Head{}, &e).Hash)
	f("the seal", c.Seal("org-a", Head{}))
	f("another seal", c.Seal("org-a", Head{Count: 1}))
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		before := v.Field(i).Interface()
		switch x := before.(type) {
		case time.Time:
			v.Field(i).Set(reflect.ValueOf(x.Add(time.Microsecond)))
		case int64:
			v.Field(i).SetInt(x + 1)
		default:
			v.Field(i).SetString(v.Field(i).String() + "x")
		}
		f("another "+v.Type().Field(i).Name, c.Add("org-a", Head{}, &e).Hash)
		v.Field(i).Set(reflect.ValueOf(before))
	}
	e.Actor, e.ProjectID = "key:", "kp"
	f("text moved along", c.Add("org-a", Head{}, &e).Hash)
	e.Actor, e.ProjectID = "key:kp", ""
	f("text moved back", c.Add("org-a", Head{}, &e).Hash)
	if len(seen) < 15 {
		t.Errorf("%d hashes", len(seen))
	}
}

func TestSealed(t *testing.T) {
	c := NewChain(testKey)
	h := Head{3, Hash{7}}
	seal := c.Seal("org-a", h)
	f := func(name string, h Head, seal []byte, want bool) {
		t.Helper()
		if c.Sealed(name, h, seal) != want {
			t.Errorf("%s %v: sealed is not %v", name, h, want)
		}
	}
	f("org-a", h, seal[:], true)
	f("org-b", h, seal[:], false)
	f("org-a", Head{2, h.Hash}, seal[:], false)
	f("org-a", Head{3, Hash{8}}, seal[:], false)
	f("org-a", h, seal[:31], false)
	f("org-a", h, nil, false)
}

func TestParseHead(t *testing.T) {
	h := Head{42, Hash{0xab, 1}}
	if got, err := ParseHead(h.String()); err != nil || got != h {
		t.Errorf("%v, %v", got, err)
	}
	digits := strings.Repeat("0", 64)
	for _, bad := range []string{"", "1", "1:", ":" + digits, "x:" + digits, "-1:" + digits, "1:" + digits + "00", "1:" + digits[1:] + "g", "1 : " + digits} {
		if got, err := ParseHead(bad); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}

func TestKeyOf(t *testing.T) {
	f := func(actor, by, id string) {
		t.Helper()
		if b, i := KeyOf(actor); b != by || i != id {
			t.Errorf("%q: %q, %q", actor, b, i)
		}
	}
	f("key:key_1", ByKey, "key_1")
	f("operator:gateway", ByOperator, "gateway")
	f("claimed:key_1", ByClaim, "key_1")
	f("gateway", "", "gateway")
	f("unknown", "", "unknown")
}
