//go:build linux

package main

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestGrounded runs the case as short as it can be, on the real gateway.
func TestGrounded(t *testing.T) {
	runtime.LockOSThread() // see start
	b := bench{duration: 200 * time.Millisecond, rounds: 2, rate: 250, grounding: 2, dir: t.TempDir()}
	var err error
	if b.binary, err = buildGateway(b.dir); err != nil {
		t.Fatal(err)
	}
	if b.mockProc, b.mock, err = startSelf("_mock"); err != nil {
		t.Fatal(err)
	}
	defer b.mockProc.stop()
	rows, err := b.grounded(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := rows[0]
	if len(rows) != 1 || r.Index != "local" || r.Companies != 2 || r.Chunks != 500 || r.Samples != 10 || r.Embedded != 0 || r.Bare.P50 <= 0 || r.Grounded.P50 <= 0 || r.RSS < 1 || len(r.AddedP50.Rounds) != 2 {
		t.Errorf("%+v", rows)
	}
	var out bytes.Buffer
	printGrounded(&out, rows)
	if !strings.Contains(out.String(), "| local | 2 | 500 |") {
		t.Errorf("printed\n%s", out.String())
	}
}
