package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/config"
	"bulkhead/web"
)

// TestLogLines holds the handler against slog's own.
func TestLogLines(t *testing.T) {
	f := func(message string, attrs ...slog.Attr) {
		t.Helper()
		var out, want bytes.Buffer
		w := newLogWriter(&out)
		cfg := config.Default()
		h := newLogger(&cfg, new(slog.LevelVar), w).Handler()
		r := slog.NewRecord(time.Date(2026, 11, 22, 1, 2, 3, 4000, time.UTC), slog.LevelWarn, message, 0)
		r.AddAttrs(attrs...)
		h.(web.LineHandler).HandleLine(r.Time, r.Level, message, attrs)
		if err := errors.Join(w.Flush(), slog.NewJSONHandler(&want, nil).Handle(t.Context(), r)); err != nil {
			t.Fatal(err)
		}
		if out.String() != want.String() {
			t.Errorf("got  %swant %s", out.String(), want.String())
		}
		if !json.Valid(out.Bytes()) || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("not one line of JSON: %q", out.String())
		}
	}
	f("call")
	f("call", slog.String("id", "req_1"), slog.Int("status", 200), slog.Int64("ms", -3), slog.Bool("stream", true))
	// What needs escaping goes the slow way: nobody forges a line or a field.
	f("call", slog.String("model", "a\"b\n{\"level\":\"x\"}"))
	f("call", slog.String("a\nb", "c"))
	f("two\nlines")
	f("call", slog.String("model", "Zoë"), slog.String("x", "\xff"))
	f("call", slog.String("html", "<&>"))
	f("call", slog.Duration("d", time.Second), slog.Any("err", errors.New("x")), slog.Group("g", slog.Int("a", 1)))
	f("call", slog.Int("1", 1), slog.Int("2", 1), slog.Int("3", 1), slog.Int("4", 1), slog.Int("5", 1), slog.Int("6", 1), slog.Int("7", 1))
}

func TestLogWriter(t *testing.T) {
	var wrote atomic.Int64
	count := writerFunc(func(p []byte) (int, error) { wrote.Add(int64(len(p))); return len(p), nil })
	w := newLogWriter(count)
	line := []byte(strings.Repeat("x", 99) + "\n")
	add := func() {
		t.Helper()
		if _, err := w.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	add()
	if err := w.Flush(); err != nil || wrote.Load() != 100 {
		t.Errorf("%d bytes are written, %v", wrote.Load(), err)
	}
	for range logRoom/len(line) + 1 {
		add()
	}
	if wrote.Load() < logRoom {
		t.Errorf("%d bytes were written by themselves, want at least %d", wrote.Load(), logRoom)
	}
}

// TestLogTimer waits for what nobody flushes.
func TestLogTimer(t *testing.T) {
	wrote := make(chan string, 1)
	w := newLogWriter(writerFunc(func(p []byte) (int, error) { wrote <- string(p); return len(p), nil }))
	if _, err := w.Write([]byte("line\n")); err != nil {
		t.Fatal(err)
	}
	if got := <-wrote; got != "line\n" {
		t.Errorf("wrote %q", got)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func BenchmarkLog(b *testing.B) {
	var sink writerFunc = func(p []byte) (int, error) { return len(p), nil }
	cfg := config.Default()
	h := newLogger(&cfg, new(slog.LevelVar), newLogWriter(sink)).Handler().(web.LineHandler)
	b.ReportAllocs()
	for b.Loop() {
		h.HandleLine(time.Now(), slog.LevelInfo, "call", []slog.Attr{slog.String("id", "req_0123456789abcdef0123456789abcdef"), slog.String("endpoint", "chat"), slog.Int("status", 200), slog.Int64("ms", 1),
			slog.String("company", "org-0123456789"), slog.String("project", "proj_MuvFIe2VX3CIfMLcmdhuF3en"), slog.String("key", "key_0123456789ab"),
			slog.String("provider", "openai"), slog.String("model", "gpt-4o"), slog.Int("attempts", 1), slog.String("outcome", "answered"), slog.Bool("stream", false),
			slog.Int64("input_tokens", 10), slog.Int64("output_tokens", 10), slog.Int64("cost", 12), slog.Int64("first", 1), slog.Int64("overhead", 12)})
	}
}
