// Package scale lets one test be two: small enough for every change, where it
// must still be able to fail, and at the full figures before a release.
//
//	s := scale.Of(t)                              // first of all in the test
//	calls := scale.Pick(s, 500, 20_000)           // small, full
//	away := scale.Pick(s, 10*time.Second, time.Minute)
//	…
//	s.Figure("calls", n)                          // what the run came to
//
// The scale is small unless the flag -scale or the variable SCALE says full, as
// "make soak" does. At full scale what came of each test is kept in
// bench/results/soak/COMMIT.json, and a test that has passed at the same commit
// is skipped: a soak that was broken off goes on where it was. Where the tree
// differs from its commit the file is named COMMIT+changes, and nothing is
// skipped.
//
// Random choices come from Rand. SEED repeats those of an earlier run.
package scale

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
)

var flagged = flag.String("scale", os.Getenv("SCALE"), "how large the tests are: small (default) or full")

// Run is one test at one scale. Its methods may be called from any goroutine.
type Run struct {
	full bool
	seed uint64
	rand *rand.Rand // guarded by mu; see Rand

	mu      sync.Mutex
	figures map[string]any
}

// Of returns the scale of the test t, which calls it before anything else and
// once. At full scale t is skipped if it has passed at this commit, and what
// comes of it is kept when it ends, after all that it cleans up itself.
func Of(t testing.TB) *Run {
	t.Helper()
	r := &Run{figures: map[string]any{}}
	switch *flagged {
	case "", "small":
	case "full":
		r.full = true
	default:
		t.Fatalf("the scale is small or full, not %q", *flagged)
	}
	r.seed = seed(t)
	r.rand = rand.New(rand.NewPCG(r.seed, 0))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to make the same random choices: SEED=%d", r.seed)
		}
	})
	if r.full {
		b, err := openBook()
		if err != nil {
			t.Fatalf("cannot keep the results of a soak: %s", err)
		}
		r.keep(t, b)
	}
	return r
}

// keep skips t if b says that it has passed, and else writes into b what comes
// of it.
func (r *Run) keep(t testing.TB, b book) {
	t.Helper()
	if at, err := b.passed(t.Name()); err != nil {
		t.Fatal(err)
	} else if !at.IsZero() {
		t.Skipf("passed at this commit on %s", at.Format(time.DateTime))
	}
	began := time.Now()
	t.Cleanup(func() {
		if t.Skipped() {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		err := b.write(t.Name(), result{
			Passed: !t.Failed(), Scale: "full", Seed: r.seed, Began: began.UTC().Truncate(time.Second),
			Seconds: int64(time.Since(began).Seconds()), Cores: runtime.NumCPU(), Go: runtime.Version(), Figures: r.figures,
		})
		if err != nil {
			t.Errorf("cannot keep the result: %s", err)
		}
	})
}

func seed(t testing.TB) uint64 {
	text := os.Getenv("SEED")
	if text == "" {
		return rand.Uint64()
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SEED is a number, not %q", text)
	}
	return n
}

// Full reports whether the test runs at the full figures.
func (r *Run) Full() bool { return r.full }

// Pick returns small or full, as the scale is.
func Pick[T any](r *Run, small, full T) T {
	if r.full {
		return full
	}
	return small
}

// Rand returns a source of random numbers for one goroutine. The first one, the
// second one and so on give the same numbers in each run with the same seed.
func (r *Run) Rand() *rand.Rand {
	r.mu.Lock()
	defer r.mu.Unlock()
	return rand.New(rand.NewPCG(r.seed, r.rand.Uint64()))
}

// Figure notes what the run came to under a name: a number or a text that a
// reader of the results wants to see. The last one of a name stays.
func (r *Run) Figure(name string, v any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, ok := v.(time.Duration); ok {
		v = fmt.Sprint(d.Round(time.Millisecond))
	}
	r.figures[name] = v
}
