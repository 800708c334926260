//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// target is one program that is asked.
type target struct {
	name string
	addr string
	key  string
	proc *process // nil for the mock asked directly
}

// The names of targets, as flags and results say them.
const (
	nameDirect = "direct"
	nameFast   = "floor-fast"
	nameLike   = "floor-like"
	nameOurs   = "bulkhead"
)

// bench is one run: its settings and what is running.
type bench struct {
	duration time.Duration // of measuring one target in one case, over all rounds
	warmUp   time.Duration // of using a target before it is measured
	rounds   int
	conns    int
	rate     int
	streams  int // for the case streams
	few, all int // companies
	names    []string
	binary   string // the gateway's
	redis    string // URL, for the case redis
	dir      string // temporary
	mock     string // address
	mockProc *process

	// For the case grounded: companies, and the address of a Milvus.
	grounding int
	milvus    string
}

// cpuCase is a closed loop: how much CPU a call costs.
type cpuCase struct {
	name  string
	conns int // 0 takes the flag's
	src   func(key string) source
}

func same(size int, stream bool, mark string) func(string) source {
	return func(key string) source {
		return source{[][]byte{wire(key, chatRequest(size, stream, mark))}, stream}
	}
}

var cpuCases = []cpuCase{
	{name: "json-1k", src: same(smallBody, false, "")},
	{name: "json-10k", src: same(largeBody, false, "")},
	{name: "sse-50", src: same(smallBody, true, "")},
	{name: "sse-50-paced", conns: 64, src: same(smallBody, true, paceEvent)},
}

// start starts a target of its own process. dir holds a gateway's state.
func (b *bench) start(name, dir string) (*target, error) {
	if name == nameOurs {
		g, err := startGateway(b.binary, dir, b.mock)
		if err != nil {
			return nil, err
		}
		return &target{name: name, addr: g.addr, key: g.demo.APIKey, proc: g.process}, nil
	}
	p, addr, err := startSelf("_"+name, b.mock)
	if err != nil {
		return nil, err
	}
	return &target{name: name, addr: addr, key: "sk-floor", proc: p}, nil
}

func (b *bench) startAll() (targets []*target, stop func(), err error) {
	stop = func() {
		for _, t := range targets {
			t.proc.stop()
		}
	}
	for _, name := range b.names {
		t, err := b.start(name, filepath.Join(b.dir, "cpu"))
		if err != nil {
			stop()
			return nil, nil, err
		}
		targets = append(targets, t)
	}
	return targets, stop, nil
}

// rotated calls f for each target in each round, each round beginning with
// another one, so that no target always follows the same neighbour.
func rotated[T any](ctx context.Context, rounds int, targets []T, f func(i int, t T) error) error {
	for r := range rounds {
		for k := range targets {
			if err := ctx.Err(); err != nil {
				return err
			}
			i := (r + k) % len(targets)
			if err := f(i, targets[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// cpuRow is one target in one CPU case.
type cpuRow struct {
	Target string  `json:"target"`
	Calls  int     `json:"calls"`
	Errors int     `json:"errors"`
	CPU    spread  `json:"cpu_us_per_call"`
	RPS    spread  `json:"calls_per_second"`
	RSS    float64 `json:"rss_mib_after"`
}

// ratio is Of divided by To, round by round.
type ratio struct {
	Of     string `json:"of"`
	To     string `json:"to"`
	Factor spread `json:"factor"`
}

type cpuResult struct {
	Case   string   `json:"case"`
	Conns  int      `json:"connections"`
	Ratios []ratio  `json:"ratios"`
	Rows   []cpuRow `json:"targets"`
}

// cpu runs a closed loop against each target in turn. sources[i] is what
// targets[i] is asked.
func (b *bench) cpu(ctx context.Context, name string, conns int, targets []*target, sources []source) (cpuResult, error) {
	res := cpuResult{Case: name, Conns: conns, Rows: make([]cpuRow, len(targets))}
	cpus, rps := make([][]float64, len(targets)), make([][]float64, len(targets))
	for i, t := range targets {
		if got := closedLoop(t.addr, conns, b.warmUp, sources[i]); got.calls == 0 {
			return res, fmt.Errorf("%s: %s answers no call: %w", name, t.name, got.first)
		}
	}
	err := rotated(ctx, b.rounds, targets, func(i int, t *target) error {
		before, err := cpuTime(t.proc.pid())
		if err != nil {
			return err
		}
		got := closedLoop(t.addr, conns, b.duration/time.Duration(b.rounds), sources[i])
		after, err := cpuTime(t.proc.pid())
		if err != nil {
			return err
		}
		if got.errors > 0 {
			return fmt.Errorf("%s: %s failed %d of %d calls, first: %w", name, t.name, got.errors, got.errors+got.calls, got.first)
		}
		cpus[i] = append(cpus[i], micros(after-before)/float64(got.calls))
		rps[i] = append(rps[i], float64(got.calls)/got.took.Seconds())
		res.Rows[i].Calls += got.calls
		return nil
	})
	if err != nil {
		return res, err
	}
	for i, t := range targets {
		bytes, err := rss(t.proc.pid())
		if err != nil {
			return res, err
		}
		row := &res.Rows[i]
		row.Target, row.CPU, row.RPS, row.RSS = t.name, spreadOf(cpus[i]), spreadOf(rps[i]), mib(bytes)
	}
	for i := range slices.Backward(targets) {
		for j := range i {
			res.Ratios = append(res.Ratios, ratio{targets[i].name, targets[j].name, spreadOf(ratios(cpus[i], cpus[j]))})
		}
	}
	return res, nil
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// latencyRow is one target at a fixed rate. Added is the difference to the
// mock asked directly in the same round.
type latencyRow struct {
	Target   string  `json:"target"`
	Samples  int     `json:"samples"`
	All      latency `json:"all_rounds"`
	P50      spread  `json:"p50_us"`
	P99      spread  `json:"p99_us"`
	AddedP50 spread  `json:"added_p50_us"`
	AddedP99 spread  `json:"added_p99_us"`
	Added    latency `json:"added_all_rounds"`
}

// openWorkers is the number of connections of an open loop.
const openWorkers = 16

func (b *bench) latency(ctx context.Context, targets []*target) ([]latencyRow, error) {
	targets = append([]*target{{name: nameDirect, addr: b.mock, key: "sk-direct"}}, targets...)
	samples := make([][]float64, len(targets))
	p50, p99 := make([][]float64, len(targets)), make([][]float64, len(targets))
	err := rotated(ctx, b.rounds, targets, func(i int, t *target) error {
		src := same(smallBody, false, "")(t.key)
		if _, err := openLoop(t.addr, openWorkers, b.rate, b.warmUp, src); err != nil {
			return fmt.Errorf("latency: %s: %w", t.name, err)
		}
		got, err := openLoop(t.addr, openWorkers, b.rate, b.duration/time.Duration(b.rounds), src)
		if err != nil {
			return fmt.Errorf("latency: %s: %w", t.name, err)
		}
		l := latencyOf(got)
		p50[i], p99[i] = append(p50[i], l.P50), append(p99[i], l.P99)
		samples[i] = append(samples[i], got...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	rows := make([]latencyRow, len(targets))
	for i, t := range targets {
		all := latencyOf(samples[i])
		direct := rows[0].All
		rows[i] = latencyRow{Target: t.name, Samples: len(samples[i]), All: all, P50: spreadOf(p50[i]), P99: spreadOf(p99[i])}
		if i > 0 {
			rows[i].AddedP50 = spreadOf(differences(p50[i], p50[0]))
			rows[i].AddedP99 = spreadOf(differences(p99[i], p99[0]))
			rows[i].Added = latency{all.P50 - direct.P50, all.P99 - direct.P99, all.P999 - direct.P999}
		}
	}
	return rows, nil
}

// streamRow is the memory of a target that holds streams open.
type streamRow struct {
	Target    string  `json:"target"`
	Streams   int     `json:"streams"`
	Before    float64 `json:"rss_mib_before"`
	Open      float64 `json:"rss_mib_open"`
	PerStream spread  `json:"rss_kib_per_stream"`
}

// openMemory measures on processes of their own, new for each round, since a
// Go process does not soon give memory back.
func (b *bench) openMemory(ctx context.Context) ([]streamRow, error) {
	names := slices.DeleteFunc(slices.Clone(b.names), func(n string) bool { return n == nameFast })
	rows, per := make([]streamRow, len(names)), make([][]float64, len(names))
	rounds := min(b.rounds, 3)
	err := rotated(ctx, rounds, names, func(i int, name string) error {
		before, open, err := b.holdStreams(name, filepath.Join(b.dir, "streams"))
		if err != nil {
			return fmt.Errorf("streams: %s: %w", name, err)
		}
		per[i] = append(per[i], float64(open-before)/1024/float64(b.streams))
		rows[i] = streamRow{Target: name, Streams: b.streams, Before: mib(before), Open: mib(open)}
		return nil
	})
	for i := range rows {
		rows[i].PerStream = spreadOf(per[i])
	}
	return rows, err
}

func (b *bench) holdStreams(name, dir string) (before, open int64, err error) {
	t, err := b.start(name, dir)
	if err != nil {
		return 0, 0, err
	}
	defer t.proc.stop()
	for _, c := range cpuCases[:3] {
		if got := closedLoop(t.addr, 2, b.warmUp, c.src(t.key)); got.calls == 0 {
			return 0, 0, got.first
		}
	}
	if before, err = rss(t.proc.pid()); err != nil {
		return 0, 0, err
	}
	closeAll, err := openStreams(t.addr, b.streams, wire(t.key, chatRequest(smallBody, true, paceStream)))
	if err != nil {
		return 0, 0, err
	}
	defer closeAll()
	open, err = rss(t.proc.pid())
	return before, open, err
}
