package scale

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// result is what is kept of one test.
type result struct {
	Passed  bool           `json:"passed"`
	Scale   string         `json:"scale"`
	Seed    uint64         `json:"seed"`
	Began   time.Time      `json:"began"`
	Seconds int64          `json:"seconds"`
	Cores   int            `json:"cores"`
	Go      string         `json:"go"`
	Figures map[string]any `json:"figures,omitempty"`
}

// book is the file with the results of one commit, by package and test.
type book struct {
	file   string
	pkg    string // the folder of the package, from the module's root
	resume bool   // what has passed need not run again
}

// openBook names the file for the tree as it now is.
func openBook() (book, error) {
	dir, err := os.Getwd()
	if err != nil {
		return book{}, err
	}
	at, err := tree()
	if err != nil {
		return book{}, err
	}
	pkg, err := filepath.Rel(at.root, dir)
	if err != nil {
		return book{}, err
	}
	return book{
		file: filepath.Join(at.root, "bench", "results", "soak", at.commit+".json"), pkg: filepath.ToSlash(pkg),
		resume: at.commit != unknown && !strings.HasSuffix(at.commit, changed),
	}, nil
}

const (
	unknown = "none"     // the commit of a tree without one
	changed = "+changes" // the tree differs from its commit
)

// place is the module's folder and its commit.
type place struct{ root, commit string }

// tree looks once: what is written while the tests run is not a change that
// they saw.
var tree = sync.OnceValues(func() (place, error) {
	root, err := os.Getwd()
	if err != nil {
		return place{}, err
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		up := filepath.Dir(root)
		if up == root {
			return place{}, errors.New("the test does not run in the module")
		}
		root = up
	}
	out, err := exec.Command("git", "-C", root, "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return place{root, unknown}, nil
	}
	commit := strings.TrimSpace(string(out))
	out, err = exec.Command("git", "-C", root, "status", "--porcelain", "--", ".", ":!bench/results").Output()
	if err != nil || len(out) > 0 {
		commit += changed
	}
	return place{root, commit}, nil
})

// name is how a test is called in the book.
func (b book) name(test string) string { return b.pkg + "." + test }

func (b book) read() (map[string]result, error) {
	all := map[string]result{}
	text, err := os.ReadFile(b.file)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the results so far: %w", err)
	}
	return all, nil
}

// passed returns when the test passed, the zero time if it has to run.
func (b book) passed(test string) (time.Time, error) {
	if !b.resume {
		return time.Time{}, nil
	}
	all, err := b.read()
	if r := all[b.name(test)]; err == nil && r.Passed {
		return r.Began, nil
	}
	return time.Time{}, err
}

// write puts r in the place of what was known of the test. The file is whole at
// any time; packages that are tested at the same time wait for one another.
func (b book) write(test string, r result) error {
	dir := filepath.Dir(b.file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	all, err := b.read()
	if err != nil {
		return err
	}
	all[b.name(test)] = r
	text, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.file+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(b.file+".new", b.file)
}
