package redisdb

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	f := func(url, want string) target {
		t.Helper()
		got, err := parse(url)
		if err != nil {
			t.Errorf("%s: %s", url, err)
		} else if got.String() != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
		return got
	}
	if got := f("redis://localhost", "redis://localhost:6379"); got.db != 0 || got.user != "" || got.password != "" || got.tls != nil {
		t.Errorf("got %#v", got)
	}
	if got := f("redis://:s%40cret%2Fx@10.0.0.1:7000/3", "redis://10.0.0.1:7000"); got.password != "s@cret/x" || got.db != 3 || got.user != "" {
		t.Error("password or database are wrong")
	}
	f("redis://[::1]:7000", "redis://[::1]:7000")
	f("redis://[::1]", "redis://[::1]:6379")
	if got := f("rediss://gate:pw@cache.example", "rediss://cache.example:6379"); got.tls == nil || got.user != "gate" || got.password != "pw" {
		t.Error("TLS or the user are wrong")
	}
	got := f("redis+sentinel://:pw@a,b:1/mymaster/2?sentinel_password=other&sentinel_user=u", "redis+sentinel://a:26379,b:1/mymaster")
	if got.master != "mymaster" || got.db != 2 || got.password != "pw" || got.sentinelPassword != "other" || got.sentinelUser != "u" {
		t.Error("a part is wrong")
	}
	f("rediss+cluster://:pw@a:1,b:2,c:3", "rediss+cluster://a:1,b:2,c:3")
	f("redis+cluster://a/0", "redis+cluster://a:6379")
}

// No error, and no way of printing, has the password.
func TestParseRefused(t *testing.T) {
	f := func(url, want string) {
		t.Helper()
		_, err := Open(url, Options{})
		if err == nil {
			t.Errorf("%s is accepted", url)
			return
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, want %q", url, err, want)
		}
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("the error has the password: %s", err)
		}
	}
	f("", "not a URL of Redis")
	f("canary", "not a URL of Redis")
	f("http://:canary@a", "not a URL of Redis")
	f("redis+magic://:canary@a", "not a URL of Redis")
	f("redis://:canary@", "names no host")
	f("redis://:canary%zz@a", "percent-encoded")
	f("redis://:canary@a,b", "several hosts")
	f("redis://:canary@a:0", "names no host")
	f("redis://:canary@a:99999", "names no host")
	f("redis://:canary@a/canary", "no number of a database")
	f("redis://:canary@a/-1", "no number of a database")
	f("redis+cluster://:canary@a/1", "no number of a database")
	f("redis+sentinel://:canary@a,b", "which master")
	f("redis+sentinel://:canary@a,b/m/canary", "no number of a database")
	f("redis://:canary@a?canary=1", "parameter")
	f("redis://:canary@a?ca_file=canary", "parameter")
	f("redis://:canary@a?sentinel_password=canary", "parameter")
	f("redis://:canary@a?%zz", "parameters")
	f("rediss://:canary@a?ca_file=/does/not/exist", "authorities")
	empty := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f("rediss://:canary@a?ca_file="+empty, "no certificate")

	c, err := Open("redis+sentinel://canary:canary@127.0.0.1:1/m?sentinel_password=canary", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Do(t.Context(), "PING")
	for _, text := range []string{fmt.Sprint(c), fmt.Sprint(c.target), fmt.Sprintf("%+v", c.target), fmt.Sprintf("%#v", c.target), fmt.Sprint(err), fmt.Sprint(c.Check(t.Context()))} {
		if strings.Contains(text, "canary") {
			t.Errorf("a secret is printed: %s", text)
		}
	}
}

// Whatever the text, parsing ends without a panic, and what it gives is printed
// in a form that parses again, unless it has lost its secrets.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"redis://:s%40x@h:1/2", "redis+sentinel://a,b:1/m/3?sentinel_user=u", "rediss+cluster://[::1]:5,b", "redis://@@:::/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "ca_file") {
			return // names a file
		}
		got, err := parse(text)
		if err != nil {
			return
		}
		again, err := parse(got.String())
		if err != nil || again.String() != got.String() {
			t.Errorf("%q is printed as %q: %v", text, got, err)
		}
	})
}
