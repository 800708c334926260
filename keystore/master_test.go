package keystore_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"bulkhead/keystore"
	"bulkhead/provider"
)

// The values were computed with another implementation of RFC 5869. A change
// here would make every stored credential and API key unreadable.
func TestDerive(t *testing.T) {
	m := master(t, masterText)
	f := func(info, want string) {
		t.Helper()
		if got := hex.EncodeToString(m.Derive(info)); got != want {
			t.Errorf("%q: got %s, want %s", info, got, want)
		}
	}
	f("key pepper", "92016e9e382aeb1248792197b36dc43574dbf4adbc9542cceba708ac58324ae8")
	f("data key wrap", "7d73b198d9256642c352e1217f0a2ab1227b5e9bda33d22cf77b868b6ca8dc64")
}

func TestMasterGiven(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb, 0xef, 0xff, 0x01}, 8) // base64 of it has + and /
	want := master(t, hex.EncodeToString(raw)).Derive("x")
	good := func(text string) {
		t.Helper()
		if got := master(t, text).Derive("x"); !bytes.Equal(got, want) {
			t.Errorf("%q gives another key", text)
		}
	}
	good(strings.ToUpper(hex.EncodeToString(raw)))
	good(base64.StdEncoding.EncodeToString(raw))
	good(base64.RawStdEncoding.EncodeToString(raw))
	good(base64.URLEncoding.EncodeToString(raw))
	good(base64.RawURLEncoding.EncodeToString(raw))
	bad := func(text string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "master.key")
		m, created, err := keystore.LoadMaster(t.Context(), keystore.MasterSource{Path: path, Given: provider.NewSecret(text)})
		if err == nil || m != nil || created {
			t.Errorf("%q was taken", text)
		} else if strings.Contains(err.Error(), text) {
			t.Errorf("the error shows the key: %s", err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("a file was made although a key was given")
		}
	}
	bad("short")
	bad(strings.Repeat("a", 63))
	bad(strings.Repeat("a", 65))
	bad(strings.Repeat("z", 64))
	bad(base64.StdEncoding.EncodeToString(raw[:31]))
	bad(base64.StdEncoding.EncodeToString(append(raw, 0)))
	bad(strings.Repeat("g!", 22))
}

func TestMasterFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	m, created, err := keystore.LoadMaster(t.Context(), keystore.MasterSource{Path: path})
	if err != nil || !created {
		t.Fatalf("first start: created %t, %v", created, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(path)
	if err != nil || len(text) != 65 {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	again, created, err := keystore.LoadMaster(t.Context(), keystore.MasterSource{Path: path})
	if err != nil || created || !bytes.Equal(again.Derive("x"), m.Derive("x")) {
		t.Fatalf("second start: created %t, %v, or another key", created, err)
	}
	if !bytes.Equal(master(t, string(text[:64])).Derive("x"), m.Derive("x")) {
		t.Fatal("the text of the file does not serve as configuration")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) != 0 {
		t.Fatalf("left behind: %q", left)
	}
	other, _, err := keystore.LoadMaster(t.Context(), keystore.MasterSource{Path: filepath.Join(t.TempDir(), "master.key")})
	if err != nil || bytes.Equal(other.Derive("x"), m.Derive("x")) {
		t.Fatalf("two installations have the same key, or %v", err)
	}
}

func TestMasterFileRefused(t *testing.T) {
	f := func(text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "master.key")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		m, created, err := keystore.LoadMaster(t.Context(), keystore.MasterSource{Path: path})
		if err == nil || m != nil || created {
			t.Errorf("mode %#o, %d bytes: taken", mode, len(text))
		} else if text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the error shows the key: %s", err)
		}
		if now, _ := os.ReadFile(path); string(now) != text {
			t.Error("the file was changed")
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o666, 0o644} {
		f(masterText, mode)
	}
	f("", 0o600)
	f(masterText[:62], 0o600)
	f(masterText+"00", 0o600)
	f(strings.Repeat("a", 4096), 0o600)

	dir := t.TempDir()
	if _, _, err := keystore.LoadMaster(t.Context(), keystore.MasterSource{Path: dir}); err == nil {
		t.Error("a folder was taken")
	}
	if _, created, err := keystore.LoadMaster(t.Context(), keystore.MasterSource{Path: filepath.Join(dir, "none", "master.key")}); err == nil || created {
		t.Error("made a key in a folder that is not there")
	}
}

// Many first starts at once end with one key.
func TestMasterFileRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	var wg sync.WaitGroup
	keys, made := make([]string, 16), make([]bool, 16)
	for i := range keys {
		wg.Go(func() {
			m, created, err := keystore.LoadMaster(t.Context(), keystore.MasterSource{Path: path})
			if err != nil {
				t.Error(err)
				return
			}
			keys[i], made[i] = string(m.Derive("x")), created
		})
	}
	wg.Wait()
	n := 0
	for i := range keys {
		if keys[i] != keys[0] {
			t.Fatal("two keys")
		}
		if made[i] {
			n++
		}
	}
	if n != 1 {
		t.Fatalf("%d say that they made it, want 1", n)
	}
}

func TestMasterNotPrintable(t *testing.T) {
	m := master(t, masterText)
	if got := fmt.Sprintf("%v %+v %#v %s %d %x", m, *m, m, m, m, *m); got != "[secret] [secret] [secret] [secret] [secret] [secret]" {
		t.Errorf("got %s", got)
	}
	hidden(t, struct{ m keystore.Master }{*m})
	hidden(t, struct{ m *keystore.Master }{m})
	if j, err := json.Marshal(m); err != nil || string(j) != `"[secret]"` {
		t.Errorf("got %s, %v", j, err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("start", "master", m)
	if !strings.Contains(log.String(), "master=[secret]") {
		t.Errorf("got %s", log.String())
	}
}
