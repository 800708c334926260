//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// TestMain lets the test binary be each program that the bench starts.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "_"):
		fail(serveRole(os.Args[1], os.Args[2:]))
	case len(os.Args) > 1 && os.Args[1] == "serve":
		fail(fakeGateway(os.Args[3]))
	default:
		os.Exit(m.Run())
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	f := func(v []float64, q, want float64) {
		t.Helper()
		if got := quantile(v, q); got != want {
			t.Errorf("quantile %v of %d values is %v, want %v", q, len(v), got, want)
		}
	}
	f(nil, 0.5, 0)
	f([]float64{7}, 0, 7)
	f([]float64{7}, 0.999, 7)
	f(hundred, 0.5, 50)
	f(hundred, 0.99, 99)
	f(hundred, 0.999, 100)
	f(hundred, 1, 100)
	if got, want := latencyOf([]float64{3, 1, 2}), (latency{2, 3, 3}); got != want {
		t.Errorf("the latency of unsorted samples is %v, want %v", got, want)
	}
}

func TestSpread(t *testing.T) {
	f := func(v []float64, median, least, most float64) {
		t.Helper()
		if got, want := spreadOf(v), (spread{median, least, most, v}); !reflect.DeepEqual(got, want) {
			t.Errorf("spread of %v is %v, want %v", v, got, want)
		}
	}
	f(nil, 0, 0, 0)
	f([]float64{4}, 4, 4, 4)
	f([]float64{9, 1, 2}, 2, 1, 9)
	f([]float64{4, 1, 2, 9}, 3, 1, 9)
	if got := ratios([]float64{2, 3, 6}, []float64{1, 0, 4}); !reflect.DeepEqual(got, []float64{2, 1.5}) {
		t.Errorf("ratios are %v", got)
	}
	if got := differences([]float64{2, 3}, []float64{1, 5}); !reflect.DeepEqual(got, []float64{1, -2}) {
		t.Errorf("differences are %v", got)
	}
}

func TestProcFiles(t *testing.T) {
	stat := "5425 (a) R (b) S 5417 5417 3184 0 -1 4194304 101 0 0 0 123 45 7 8 20 0 1 0 54823 3133440 360"
	if got, err := parseStat(stat); err != nil || got != 1680*time.Millisecond {
		t.Errorf("stat: %v, %v", got, err)
	}
	if _, err := parseStat("1 (x) R 1"); err == nil {
		t.Error("a short stat is no error")
	}
	if got, err := parseSchedstat("317174548 39483 5\n"); err != nil || got != 317174548 {
		t.Errorf("schedstat: %v, %v", got, err)
	}
	if _, err := parseSchedstat("1"); err == nil {
		t.Error("a short schedstat is no error")
	}
	if got, err := parseRSS("Name:\tx\nVmRSS:\t    1752 kB\nVmData: 1 kB\n"); err != nil || got != 1752<<10 {
		t.Errorf("status: %v, %v", got, err)
	}
	if got, err := parseHeap("heap profile: 1: 2\n# Alloc = 5\n# HeapAlloc = 123456\n"); err != nil || got != 123456 {
		t.Errorf("heap: %v, %v", got, err)
	}
}

// The files of this machine are as the parsers expect.
func TestCPUTimeGrows(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		for x, i := 1.0, 0; i < 1_000_000; i++ {
			x = math.Sqrt(x + 1)
		}
		now, err := cpuTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now > before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("cpuTime stays at %s", now)
		}
	}
	if n, err := rss(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("rss is %d, %v", n, err)
	}
}

func TestSizes(t *testing.T) {
	f := func(name string, b []byte, want int) {
		t.Helper()
		if len(b) != want || !json.Valid(b) {
			t.Errorf("%s has %d bytes, want %d of JSON: %.100s", name, len(b), want, b)
		}
	}
	f("small request", chatRequest(smallBody, false, ""), smallBody)
	f("marked request", chatRequest(smallBody, true, paceStream), smallBody)
	f("large request", chatRequest(largeBody, false, ""), largeBody)
	f("small answer", chatAnswer(smallBody), smallBody)
	f("large answer", chatAnswer(largeBody), largeBody)
}

func serve(t *testing.T, s *fasthttp.Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().String()
}

// Both floors hand on what the mock says, byte for byte, again and again on
// one connection.
func TestFloorsCopy(t *testing.T) {
	mock := serve(t, floorServer(mockHandler(), false))
	addrs := map[string]string{
		nameDirect: mock,
		nameFast:   serve(t, floorServer(floorFast(mock), false)),
		nameLike:   serve(t, floorServer(floorLike(mock), true)),
	}
	f := func(body []byte, stream bool, want []byte) {
		t.Helper()
		for name, addr := range addrs {
			c := newClient(addr)
			for range 3 {
				if err := c.do(wire("k", body), stream); err != nil {
					t.Fatalf("%s: %s", name, err)
				}
				if got := c.resp.Body(); !bytes.Equal(got, want) {
					t.Fatalf("%s: %d bytes, want %d: %.200s", name, len(got), len(want), got)
				}
			}
			c.close()
		}
	}
	f(chatRequest(smallBody, false, ""), false, chatAnswer(smallBody))
	f(chatRequest(largeBody, false, ""), false, chatAnswer(largeBody))
	f(chatRequest(smallBody, true, ""), true, bytes.Join(events(chunks, false), nil))
	f(chatRequest(smallBody, true, paceEvent), true, bytes.Join(events(chunks, false), nil))
	f([]byte(`{"stream":true,"stream_options":{"include_usage":true}}`), true, bytes.Join(events(chunks, true), nil))
}

// floor-like lets go of an upstream that is silent when its client leaves.
func TestFloorLikeSeesClose(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c := newClient(serve(t, floorServer(floorLike(silent.Addr().String()), true)))
	if err := c.send(wire("k", chatRequest(smallBody, true, ""))); err != nil {
		t.Fatal(err)
	}
	up, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	c.close()
	_ = up.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 4<<10)
	for err = nil; err == nil; {
		_, err = up.Read(buf)
	}
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Error("the upstream was not closed")
	}
}

func TestCheckAnswer(t *testing.T) {
	f := func(status int, body string, stream, good bool) {
		t.Helper()
		var resp fasthttp.Response
		resp.SetStatusCode(status)
		resp.SetBodyString(body)
		if err := checkAnswer(&resp, stream); (err == nil) != good {
			t.Errorf("%d %.40q: %v", status, body, err)
		}
	}
	whole := string(bytes.Join(events(chunks, false), nil))
	f(200, string(chatAnswer(smallBody)), false, true)
	f(429, string(chatAnswer(smallBody)), false, false)
	f(200, `{}`, false, false)
	f(200, whole, true, true)
	f(200, strings.TrimSuffix(whole, doneEvent), true, false)
	f(200, doneEvent, true, false)
}

// fakeGateway keeps the contract that startGateway counts on, in front of a
// floor.
func fakeGateway(config string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(text), "base_url: http://")
	upstream, _, _ := strings.Cut(rest, "/v1")
	pass := floorLike(upstream)
	made := func(n int64) []byte {
		return fmt.Appendf(nil, `{"id":"c%d","name":"n","admin_key":"admin%d","api_key":"api%d"}`, n, n, n)
	}
	data := os.Getenv("BULKHEAD_DATA")
	if err := os.WriteFile(filepath.Join(data, "operator.key"), []byte("op\n"), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, "demo.json"), made(0), 0o600); err != nil {
		return err
	}
	var companies atomic.Int64
	ops := func(rc *fasthttp.RequestCtx) {
		switch {
		case string(rc.Path()) == "/readyz":
		case string(rc.Request.Header.Peek("Authorization")) != "Bearer op":
			rc.Error("no", http.StatusUnauthorized)
		case string(rc.Path()) == "/admin/companies":
			rc.SetBody(made(companies.Add(1)))
		case string(rc.Path()) == "/debug/pprof/heap":
			rc.SetBodyString("# HeapAlloc = 1048576\n")
		}
	}
	front := func(rc *fasthttp.RequestCtx) {
		key := string(rc.Request.Header.Peek("Authorization"))
		admin := strings.HasPrefix(string(rc.Path()), "/v1/organization/")
		switch {
		case admin && rc.IsGet():
			rc.SetBodyString(`{"data":[{"id":"key_1"}]}`)
		case admin && strings.HasPrefix(key, "Bearer admin"):
			rc.SetStatusCode(http.StatusCreated)
		case !admin && strings.HasPrefix(key, "Bearer api"):
			pass(rc)
		default:
			rc.Error("no", http.StatusUnauthorized)
		}
	}
	ended := make(chan error, 2)
	// Ready means that both are served.
	l, err := net.Listen("tcp", os.Getenv("BULKHEAD_LISTEN"))
	if err != nil {
		return err
	}
	go func() { ended <- floorServer(front, true).Serve(l) }()
	go func() { ended <- floorServer(ops, false).ListenAndServe(os.Getenv("BULKHEAD_OPS_LISTEN")) }()
	return <-ended
}

// A whole run, as short as it can be, on processes of their own.
func TestMeasure(t *testing.T) {
	runtime.LockOSThread() // see start
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := bench{
		duration: 50 * time.Millisecond, warmUp: 10 * time.Millisecond, rounds: 1, conns: 2, rate: 200,
		streams: 3, few: 1, all: 3, names: []string{nameFast, nameLike, nameOurs}, binary: exe,
	}
	rep := &report{Machine: thisMachine(), Commit: "none", Flags: map[string]string{"rate": "200"}}
	// The case grounded needs more than a fake gateway: see TestGrounded.
	chosen := slices.DeleteFunc(slices.Clone(allCases), func(name string) bool { return name == "grounded" })
	if err := b.measure(t.Context(), chosen, rep); err != nil {
		t.Fatal(err)
	}
	if len(rep.CPU) != 5 || len(rep.Latency) != 4 || len(rep.Streams) != 2 || rep.Companies == nil {
		t.Fatalf("cases are missing: %d %d %d %v", len(rep.CPU), len(rep.Latency), len(rep.Streams), rep.Companies)
	}
	for _, c := range rep.CPU {
		targets := 3
		if c.Case == "budgets" {
			targets = 2 // the floor and the gateway with budgets
		}
		if len(c.Ratios) != targets*(targets-1)/2 || len(c.Rows) != targets {
			t.Errorf("%s has %d ratios of %d targets", c.Case, len(c.Ratios), len(c.Rows))
		}
		for _, row := range c.Rows {
			if row.Calls == 0 || row.CPU.Median <= 0 || row.RPS.Median <= 0 || row.RSS < 1 {
				t.Errorf("%s: %+v", c.Case, row)
			}
		}
	}
	for _, l := range rep.Latency {
		if l.Samples != 10 || l.All.P50 <= 0 || l.All.P999 < l.All.P50 {
			t.Errorf("latency: %+v", l)
		}
	}
	if rows := rep.Companies.Rows; rows[1].Companies != 3 || len(rows[1].keys) != 3 || rows[1].HeapIdle != 1 {
		t.Errorf("companies: %+v", rows)
	}
	file := filepath.Join(t.TempDir(), "results", "x.json")
	if err := rep.save(file); err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(saved, &back); err != nil || len(back.CPU) != 5 {
		t.Errorf("the saved report does not read back: %v", err)
	}
	var out bytes.Buffer
	rep.print(&out)
	for _, want := range []string{"| json-1k | bulkhead | floor-like |", "| budgets | bulkhead with budgets | floor-like |", "| streams |", "| KiB per company |", "| direct |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if _, err := os.Stat(b.dir); err == nil {
		t.Errorf("%s is still there", b.dir)
	}
}

// A gateway that does not come up is an error that shows its log.
func TestGatewayFails(t *testing.T) {
	runtime.LockOSThread() // see start
	dir := t.TempDir()
	bin := filepath.Join(dir, "broken")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\necho the reason\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := startGateway(bin, dir, "127.0.0.1:1")
	if err == nil || !strings.Contains(err.Error(), "the reason") || !strings.Contains(err.Error(), "the process ended") {
		t.Errorf("got %v", err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := rotated(ctx, 5, []int{0, 1, 2}, func(int, int) error {
		n++
		cancel()
		return nil
	})
	if err == nil || n != 1 {
		t.Errorf("went on %d times after the cancel: %v", n, err)
	}
}

func TestParseScripts(t *testing.T) {
	info := "# Commandstats\r\ncmdstat_ping:calls=3,usec=2\r\ncmdstat_evalsha:calls=1234,usec=5,usec_per_call=0.1\r\n"
	if got := parseScripts(info); got != 1234 {
		t.Errorf("got %d scripts", got)
	}
	if got := parseScripts("cmdstat_get:calls=9"); got != 0 {
		t.Errorf("got %d scripts where none ran", got)
	}
}

// What a client writes in one piece is one message, and comes through.
func TestTap(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	tap, err := newTap(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tap.close()
	c, err := net.Dial("tcp", tap.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 5 {
		sent := fmt.Sprint("PING and PONG ", i)
		if _, err := c.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != sent {
			t.Fatalf("%q came back as %q, %v", sent, got, err)
		}
	}
	if n := tap.messages.Load(); n != 5 {
		t.Errorf("%d messages, not 5", n)
	}
}
