package ledger

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
	soak "bulkhead/test/scale" // cost.go has a scale
)

// childFolder names the folder in the environment of a process that is to be
// killed: this test's own binary, which makes attempts there until then.
const childFolder = "LEDGER_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childFolder); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// anyCompany is a tenant.Source and Recorder to which every company is known, so
// that each process can open those of another.
type anyCompany struct{ tenant.People }

func (anyCompany) LoadCompany(_ context.Context, id tenant.ID, c *tenant.Company) error {
	c.Name, c.Status = id.String(), tenant.Active
	return nil
}

func (anyCompany) LoadKey(context.Context, tenant.ID, string) (*tenant.Key, error) {
	return nil, tenant.ErrNotFound
}

func (anyCompany) LoadOperatorKey(context.Context, string) (*tenant.Key, error) {
	return nil, tenant.ErrNotFound
}

func (anyCompany) RecordAct(context.Context, string, string, string) error { return nil }

// openCompany is a ScopeOf.
func openCompany(ctx context.Context, company string) (s tenant.Scope, err error) {
	d := tenant.NewDirectory(anyCompany{}, anyCompany{}, tenant.NewMinter(tenanttest.Pepper), tenant.Options{})
	act, err := d.Gateway().Begin(ctx, "test.read", company)
	if err != nil {
		return s, err
	}
	return d.Scope(ctx, act, company)
}

// childCompanies are those that the child makes attempts for. The first one's
// entries its store never takes.
var childCompanies = [...]string{"org-0000000000", "org-0000000001", "org-zzzzzzzzzz"}

// killOptions are those of the child and of who comes after it: segments of a
// few dozen records, so that a kill meets each thing that is done with them.
func killOptions(dir string) Options {
	return Options{
		Journal: filepath.Join(dir, "journal"), ScopeOf: openCompany,
		SegmentBytes: 8 << 10, Memory: 20, Batch: 16, Every: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
	}
}

// fileStore keeps entries in a file, a line each: a store that survives kills.
type fileStore struct {
	path  string
	fails func(company string) bool
}

// storedLine is an entry with its company, as fileStore writes it.
type storedLine struct {
	Company string
	Entry   Entry
}

func (f fileStore) AppendEntries(_ context.Context, batch []Booked) error {
	b := []byte{'\n'} // ends what a kill cut in its middle
	for _, booked := range batch {
		company := booked.Scope.ID().String()
		if f.fails != nil && f.fails(company) {
			return errAway
		}
		line, err := json.Marshal(storedLine{company, booked.Entry})
		if err != nil {
			return err
		}
		b = append(append(b, line...), '\n')
	}
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	_, err = file.Write(b)
	return err
}

// childOrders are in a file of the folder.
type childOrders struct {
	Sync Sync
	Seed uint64
}

// child makes attempts in the folder until it is killed, and says on its standard
// output what it is about to do and what it has done.
func child(dir string) error {
	var given childOrders
	text, err := os.ReadFile(filepath.Join(dir, "child.json"))
	if err == nil {
		err = json.Unmarshal(text, &given)
	}
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(given.Seed, 1))
	o := killOptions(dir)
	o.Sync = given.Sync
	n := 0
	l, err := Open(context.Background(), fileStore{filepath.Join(dir, "store"), func(company string) bool { // called by one goroutine
		n++
		return company == childCompanies[0] || n/50%2 == 1 // one never, the others at times
	}}, o)
	if err != nil {
		return err
	}
	tell("ready", "-", "-", 0)
	for g := range 8 {
		s, err := openCompany(context.Background(), childCompanies[g%len(childCompanies)])
		if err != nil {
			return err
		}
		go attempts(l, s, rand.New(rand.NewPCG(given.Seed, random.Uint64())))
	}
	select {} // until it is killed
}

// attempts makes attempts: short ones, and now and then one that stays open for
// many others.
func attempts(l *Ledger, s tenant.Scope, random *rand.Rand) {
	company := s.ID().String()
	type running struct {
		slot  Slot
		entry Entry
	}
	var long []running
	for {
		slot, err := l.Reserve(s)
		if err != nil {
			return
		}
		e := usual(NewAttemptID())
		e.HighNano = 1000 + random.Int64N(1000)
		tell("open?", company, e.ID, e.HighNano)
		if err := slot.Open(e); err != nil {
			return
		}
		tell("open!", company, e.ID, e.HighNano)
		long = append(long, running{slot, e})
		if random.IntN(10) == 0 && len(long) < 20 {
			continue
		}
		i := random.IntN(len(long))
		r := long[i]
		long = append(long[:i], long[i+1:]...)
		if random.IntN(8) == 0 {
			tell("void?", company, r.entry.ID, 0)
			r.slot.Cancel()
			tell("void!", company, r.entry.ID, 0)
			continue
		}
		r.entry.CostNano = random.Int64N(1000)
		r.entry.LowNano, r.entry.HighNano = r.entry.CostNano, r.entry.CostNano
		tell("close?", company, r.entry.ID, r.entry.CostNano)
		r.slot.Record(r.entry)
		tell("close!", company, r.entry.ID, r.entry.CostNano)
	}
}

// tell writes one line, which a kill does not take apart: it is shorter than what
// a pipe takes at once.
func tell(what, company, id string, nano int64) {
	line := fmt.Sprintln(what, company, id, nano)
	if _, err := syscall.Write(1, []byte(line)); err != nil {
		os.Exit(2)
	}
}

// attempted is what a child said of an attempt.
type attempted struct {
	company    string
	said       string // the last
	held, cost int64
}

// runChild starts a child, kills it a while after it is ready and takes in what it
// said; with after below 0 it is killed that long after its start, ready or not.
// ready, if there is one, is called with its process id when it is.
func runChild(t *testing.T, dir string, sync Sync, seed uint64, after time.Duration, ready func(pid int), all map[string]attempted) {
	t.Helper()
	given, err := json.Marshal(childOrders{sync, seed})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "child.json"), given, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childFolder+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var kill *time.Timer
	if after < 0 {
		kill = time.AfterFunc(-after, func() { _ = cmd.Process.Kill() })
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		part := strings.Fields(lines.Text())
		if len(part) != 4 {
			t.Errorf("half a line: %q", lines.Text())
			break
		}
		if kill == nil {
			if ready != nil {
				ready(cmd.Process.Pid)
			}
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		note(t, all, part)
	}
	if kill != nil {
		kill.Stop()
	}
	_ = cmd.Process.Kill()
	err = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended by itself: %v %s", err, stderr.Bytes())
	}
}

func note(t *testing.T, all map[string]attempted, part []string) {
	t.Helper()
	what, company, id := part[0], part[1], part[2]
	nano, err := strconv.ParseInt(part[3], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if what == "ready" {
		return
	}
	a := all[id]
	a.company, a.said = company, what
	switch what {
	case "open?":
		a.held = nano
	case "close?":
		a.cost = nano
	}
	all[id] = a
}

// readStore reads what fileStore wrote, by the rules of Store. What a kill cut
// in its middle was not acknowledged.
func readStore(t *testing.T, path string) map[string]storedLine {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	all := map[string]storedLine{}
	for _, line := range bytes.Split(text, []byte("\n")) {
		var s storedLine
		if json.Unmarshal(line, &s) != nil {
			continue
		}
		old, there := all[s.Entry.ID]
		switch {
		case !there || old.Entry.Rank < s.Entry.Rank:
			all[s.Entry.ID] = s
		case old.Company != s.Company:
			t.Errorf("%s is of %s and of %s", s.Entry.ID, old.Company, s.Company)
		case old.Entry.Rank == s.Entry.Rank && old.Entry.CostNano != s.Entry.CostNano:
			t.Errorf("%s costs %d and %d", s.Entry.ID, old.Entry.CostNano, s.Entry.CostNano)
		}
	}
	return all
}

// TestKill kills processes at random points, some while they read what the one
// before left, and then looks at what the store has: DESIGN section 10, row 1.
func TestKill(t *testing.T) {
	sc := soak.Of(t)
	kills := soak.Pick(sc, 15, 200)
	random := sc.Rand()
	var attempts, closes, swept, found int
	for done := 0; done < kills; {
		dir := t.TempDir()
		all := map[string]attempted{}
		sync := []Sync{SyncOff, SyncDefault, SyncAlways}[random.IntN(3)]
		for range 1 + random.IntN(3) {
			after := time.Duration(random.Int64N(int64(120 * time.Millisecond)))
			if random.IntN(3) == 0 {
				after = -after / 4 // while it reads what the one before left
			}
			runChild(t, dir, sync, random.Uint64(), after, nil, all)
			done++
		}
		r := finish(t, dir)
		found += r.Closed + r.Swept
		stored := readStore(t, filepath.Join(dir, "store"))
		for id, s := range stored {
			if a, ok := all[id]; !ok || a.company != s.Company {
				t.Errorf("%s of %s was never attempted there", id, s.Company)
			}
		}
		for id, a := range all {
			attempts++
			s, there := stored[id]
			isSwept := there && s.Entry.Outcome == Swept && s.Entry.Rank == ByLease && s.Entry.CostNano == a.held && s.Entry.HighNano == a.held && s.Entry.LowNano == 0
			isClosed := there && s.Entry.Outcome == Answered && s.Entry.Rank == Final && s.Entry.CostNano == a.cost
			good := false
			switch a.said {
			case "open?":
				good = !there || isSwept
			case "open!":
				good = isSwept
			case "close?":
				good = isSwept || isClosed
			case "close!":
				good = isClosed
			case "void?":
				good = !there || isSwept
			case "void!":
				good = !there
			}
			if !good {
				t.Errorf("%s: the process said %s, held %d, cost %d; stored is %t, %+v", id, a.said, a.held, a.cost, there, s.Entry)
			}
			if isClosed {
				closes++
			} else if isSwept {
				swept++
			}
		}
		if t.Failed() {
			t.Fatalf("after %d kills", done)
		}
	}
	if attempts == 0 || closes == 0 || swept == 0 || found == 0 {
		t.Errorf("%d attempts, %d closed, %d swept, %d from the journal: nothing was shown", attempts, closes, swept, found)
	}
	sc.Figure("kills", kills)
	sc.Figure("attempts", attempts)
	sc.Figure("closed", closes)
	sc.Figure("swept", swept)
	sc.Figure("recovered", found)
	t.Logf("%d kills: %d attempts, %d closed, %d swept, %d recovered", kills, attempts, closes, swept, found)
}

// TestTwoProcesses: the folder is another process's until that one is dead.
func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	all := map[string]attempted{}
	runChild(t, dir, SyncOff, 1, 0, func(pid int) {
		_, err := Open(t.Context(), &fakeStore{}, killOptions(dir))
		if want := fmt.Sprintf("process %d uses it", pid); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}, all)
	finish(t, dir)
}

// finish does what the next process does, with a store that works.
func finish(t *testing.T, dir string) Recovery {
	t.Helper()
	l := open(t, fileStore{path: filepath.Join(dir, "store")}, killOptions(dir))
	r := l.Recovered()
	if len(r.Damage) > 0 || len(r.Aside) > 0 {
		t.Errorf("%+v", r)
	}
	flush(t, l)
	closeNow(t, l)
	if left := files(t, filepath.Join(dir, "journal")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	return r
}
