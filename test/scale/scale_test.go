package scale

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPick(t *testing.T) {
	if got := Pick(&Run{}, 1, 2); got != 1 {
		t.Errorf("small is %d", got)
	}
	if got := Pick(&Run{full: true}, time.Second, time.Minute); got != time.Minute {
		t.Errorf("full is %s", got)
	}
}

func TestSmall(t *testing.T) {
	if *flagged != "" && *flagged != "small" {
		t.Skip("the scale was set")
	}
	if r := Of(t); r.Full() || Pick(r, 1, 2) != 1 {
		t.Error("without a flag the scale is full")
	}
}

func TestSeed(t *testing.T) {
	draw := func(seed string) (all [2]uint64) {
		t.Setenv("SEED", seed)
		r := Of(t)
		return [2]uint64{r.Rand().Uint64(), r.Rand().Uint64()}
	}
	first := draw("7")
	if first != draw("7") {
		t.Error("one seed gave two sequences")
	}
	if first[0] == first[1] {
		t.Error("two sources of one run give the same numbers")
	}
	if first == draw("8") {
		t.Error("two seeds gave the same")
	}
}

// fake is a test that another one watches: whether it was skipped, and what it
// does when it ends.
type fake struct {
	testing.TB
	name            string
	failed, skipped bool
	cleanup         []func()
}

func (f *fake) Name() string         { return f.name }
func (f *fake) Failed() bool         { return f.failed }
func (f *fake) Skipped() bool        { return f.skipped }
func (f *fake) Skipf(string, ...any) { f.skipped = true }
func (f *fake) Cleanup(fn func())    { f.cleanup = append(f.cleanup, fn) }

// TestResume breaks a soak off and goes on: what passed is not run again, what
// failed is, and other tests and packages are others.
func TestResume(t *testing.T) {
	b := book{file: filepath.Join(t.TempDir(), "soak", "abc.json"), pkg: "test", resume: true}
	run := func(b book, name string, fails bool) (skipped bool) {
		t.Helper()
		f := &fake{TB: t, name: name, failed: fails}
		r := &Run{full: true, seed: 7, figures: map[string]any{}}
		r.keep(f, b)
		r.Figure("calls", 12)
		r.Figure("took", 1500*time.Millisecond)
		for _, fn := range f.cleanup {
			fn()
		}
		return f.skipped
	}
	f := func(b book, name string, fails, skipped bool) {
		t.Helper()
		if got := run(b, name, fails); got != skipped {
			t.Errorf("%s in %s: skipped is %t", name, b.pkg, got)
		}
	}
	f(b, "TestA", false, false)
	f(b, "TestA", false, true)
	f(b, "TestB", true, false)
	f(b, "TestB", true, false) // failed before: once more
	f(b, "TestB", false, false)
	f(b, "TestB", false, true)
	other := b
	other.pkg = "store"
	f(other, "TestA", false, false)
	changes := b
	changes.resume = false // the tree may have changed since
	f(changes, "TestA", false, false)
	all, err := b.read()
	if err != nil {
		t.Fatal(err)
	}
	a := all["test.TestA"]
	if len(all) != 3 || !a.Passed || a.Scale != "full" || a.Seed != 7 || a.Began.IsZero() || a.Figures["calls"] != 12.0 || a.Figures["took"] != "1.5s" {
		t.Errorf("the book has %+v", all)
	}

	// A file that is not one is not written over.
	if err := os.WriteFile(b.file, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.write("TestA", result{}); err == nil {
		t.Error("a broken file was written over")
	}
}

// TestPlace: the results belong to a commit of this module.
func TestPlace(t *testing.T) {
	b, err := openBook()
	if err != nil {
		t.Fatal(err)
	}
	if b.pkg != "test/scale" || filepath.Base(filepath.Dir(b.file)) != "soak" || filepath.Ext(b.file) != ".json" {
		t.Errorf("%+v", b)
	}
}
