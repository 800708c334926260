//go:build linux

// Command bench measures what the gateway costs beside two floors: proxies
// that do nothing but pass a call on (DESIGN.md section 11). It builds the
// gateway, runs it, the floors and a provider as processes of their own,
// loads them in turn and prints tables; README.md says how to read them.
//
// It imports nothing of the gateway: what it measures is the built binary.
// Linux only, for /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

func main() {
	runtime.LockOSThread() // see start
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "_") {
		fail(serveRole(os.Args[1], os.Args[2:]))
		return
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	fail(run(ctx))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// serveRole is this program as one of the measured processes: it prints the
// address it took and serves until it is killed.
func serveRole(role string, args []string) error {
	if role != "_mock" && role != embedderRole && len(args) != 1 {
		return fmt.Errorf("%s needs the upstream's address", role)
	}
	var s *fasthttp.Server
	switch role {
	case "_mock":
		s = floorServer(mockHandler(), false)
	case embedderRole:
		s = floorServer(embedderHandler(), false)
	case "_" + nameFast:
		s = floorServer(floorFast(args[0]), false)
	case "_" + nameLike:
		s = floorServer(floorLike(args[0]), true)
	default:
		return fmt.Errorf("unknown role %q", role)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	return s.Serve(ln)
}

var allCases = []string{"json-1k", "json-10k", "sse-50", "sse-50-paced", "budgets", "latency", "streams", "companies", "redis", "grounded"}

func run(ctx context.Context) error {
	var (
		b       bench
		out     = flag.String("out", "", "JSON file for the numbers, in bench/results/; empty names it by date and commit, - writes none")
		scale   = flag.String("scale", "small", "small or full: full is 2,000 streams and 10,000 companies")
		cases   = flag.String("cases", strings.Join(allCases, ","), "what to measure")
		targets = flag.String("targets", strings.Join([]string{nameFast, nameLike, nameOurs}, ","), "what to measure it on")
	)
	flag.DurationVar(&b.duration, "duration", 0, "measuring time of one target in one case, all rounds (default 5s, full 20s)")
	flag.IntVar(&b.rounds, "rounds", 5, "rounds; targets take turns in each")
	flag.IntVar(&b.conns, "conns", 16, "connections of a closed loop")
	flag.IntVar(&b.rate, "rate", 500, "calls a second of the case latency")
	flag.StringVar(&b.redis, "redis", "", "redis://HOST:PORT/DB of a Redis for the case redis, which is left out without")
	flag.IntVar(&b.grounding, "companies", 0, "companies of the case grounded (default 20, full 1000)")
	flag.StringVar(&b.milvus, "milvus", "", "HOST:PORT of a Milvus for the case grounded, which without is measured in process only")
	flag.StringVar(&b.binary, "gateway", "", "the gateway's binary (default: built from ./cmd/gateway)")
	flag.Parse()

	chosen := strings.Split(*cases, ",")
	b.names = strings.Split(*targets, ",")
	if err := b.check(*scale, chosen); err != nil {
		return err
	}
	if err := raiseFiles(uint64(2*b.streams + 500)); err != nil {
		return err
	}
	rep := &report{Machine: thisMachine(), Commit: commit(), Date: time.Now().UTC(), Flags: map[string]string{}}
	flag.VisitAll(func(f *flag.Flag) { rep.Flags[f.Name] = f.Value.String() })
	if err := b.measure(ctx, chosen, rep); err != nil {
		return err
	}
	rep.print(os.Stdout)
	switch *out {
	case "-":
		return nil
	case "":
		*out = filepath.Join("bench", "results", rep.Date.Format("20060102-1504-")+rep.Commit+".json")
	}
	return rep.save(*out)
}

// check reports what is wrong with the flags, and fills in the scale.
func (b *bench) check(scale string, chosen []string) error {
	d, grounding := 5*time.Second, 20
	b.warmUp = 300 * time.Millisecond
	switch scale {
	case "small":
		b.streams, b.few, b.all = 500, 10, 500
	case "full":
		b.streams, b.few, b.all, d, grounding = 2000, 10, 10_000, 20*time.Second, 1000
	default:
		return fmt.Errorf("-scale is small or full, not %q", scale)
	}
	if b.duration == 0 {
		b.duration = d
	}
	if b.grounding == 0 {
		b.grounding = grounding
	}
	if b.duration < 0 || b.grounding < 0 || b.rounds < 1 || b.conns < 1 || b.rate < 1 {
		return errors.New("-duration, -companies, -rounds, -conns and -rate must be above 0")
	}
	for _, c := range chosen {
		if !slices.Contains(allCases, c) {
			return fmt.Errorf("-cases: unknown case %q; there are %s", c, strings.Join(allCases, " "))
		}
	}
	for _, n := range b.names {
		if n != nameFast && n != nameLike && n != nameOurs {
			return fmt.Errorf("-targets: unknown target %q; there are %s %s %s", n, nameFast, nameLike, nameOurs)
		}
	}
	return nil
}

// raiseFiles lets this process and those it starts open n files.
func raiseFiles(n uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Max = max(l.Max, n) // more than before is for root only
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("cannot have %d open files (ulimit -n): %w", n, err)
	}
	return nil
}

// measure starts what is needed, runs the chosen cases and fills in rep.
func (b *bench) measure(ctx context.Context, chosen []string, rep *report) error {
	var err error
	if b.dir, err = os.MkdirTemp("", "bulkhead-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if slices.Contains(b.names, nameOurs) {
		if b.binary == "" {
			b.binary, err = buildGateway(b.dir)
		} else {
			b.binary, err = filepath.Abs(b.binary)
		}
		if err != nil {
			return err
		}
	}
	if b.mockProc, b.mock, err = startSelf("_mock"); err != nil {
		return err
	}
	defer b.mockProc.stop()
	if err := b.measureRunning(ctx, chosen, rep); err != nil {
		return err
	}
	if slices.Contains(chosen, "streams") {
		say("streams")
		if rep.Streams, err = b.openMemory(ctx); err != nil {
			return err
		}
	}
	return b.measureOurs(ctx, chosen, rep)
}

// measureOurs is the cases that are about the gateway alone, on processes of
// their own.
func (b *bench) measureOurs(ctx context.Context, chosen []string, rep *report) error {
	cases := []struct {
		name string
		run  func() error
	}{
		{"budgets", func() error {
			res, err := b.budgets(ctx)
			rep.CPU = append(rep.CPU, res)
			return err
		}},
		{"companies", func() (err error) {
			rep.Companies, err = b.companies(ctx)
			return err
		}},
		{"redis", func() (err error) {
			rep.Redis, err = b.redisCase(ctx)
			return err
		}},
		{"grounded", func() (err error) {
			rep.Grounded, err = b.grounded(ctx)
			return err
		}},
	}
	for _, c := range cases {
		switch {
		case !slices.Contains(chosen, c.name):
			continue
		case !slices.Contains(b.names, nameOurs):
			say(c.name + ": left out, it needs the target " + nameOurs)
			continue
		case c.name == "redis" && b.redis == "":
			say("redis: left out, it needs -redis")
			continue
		}
		say(c.name)
		if err := c.run(); err != nil {
			return err
		}
	}
	return nil
}

// measureRunning is the cases that share one process for each target.
func (b *bench) measureRunning(ctx context.Context, chosen []string, rep *report) error {
	targets, stop, err := b.startAll()
	if err != nil {
		return err
	}
	defer stop()
	for _, c := range cpuCases {
		if !slices.Contains(chosen, c.name) {
			continue
		}
		say(c.name)
		conns := c.conns
		if conns == 0 {
			conns = b.conns
		}
		var sources []source
		for _, t := range targets {
			sources = append(sources, c.src(t.key))
		}
		res, err := b.cpu(ctx, c.name, conns, targets, sources)
		if err != nil {
			return err
		}
		rep.CPU = append(rep.CPU, res)
	}
	if slices.Contains(chosen, "latency") {
		say("latency")
		rep.Latency, err = b.latency(ctx, targets)
	}
	return err
}

func say(s string) { fmt.Fprintln(os.Stderr, "bench:", s) }
