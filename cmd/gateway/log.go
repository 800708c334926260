package main

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"bulkhead/config"
	"bulkhead/web"
)

// logWriter gathers lines and writes them together, so that a busy gateway does
// not pay a system call for each request. What is gathered is written after
// logDelay at the latest, and at once when it has become much.
type logWriter struct {
	mu     sync.Mutex
	w      io.Writer
	buf    []byte
	timer  *time.Timer
	queued bool
}

const (
	logDelay = 100 * time.Millisecond
	logRoom  = 32 << 10 // bytes
)

func newLogWriter(w io.Writer) *logWriter {
	l := &logWriter{w: w}
	l.timer = time.AfterFunc(time.Hour, func() { _ = l.Flush() })
	l.timer.Stop()
	return l
}

func (l *logWriter) Write(line []byte) (int, error) {
	return len(line), l.line(func(buf []byte) []byte { return append(buf, line...) })
}

// line adds what add appends.
func (l *logWriter) line(add func(buf []byte) []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = add(l.buf)
	if len(l.buf) >= logRoom {
		return l.flush()
	}
	if !l.queued {
		l.queued = true
		l.timer.Reset(logDelay)
	}
	return nil
}

// Flush writes what is gathered.
func (l *logWriter) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flush()
}

func (l *logWriter) flush() error {
	l.queued = false
	if len(l.buf) == 0 {
		return nil
	}
	_, err := l.w.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}

// newLogger returns the log of cfg. The level can be changed later.
func newLogger(cfg *config.Config, level *slog.LevelVar, w *logWriter) *slog.Logger {
	level.Set(cfg.Log.SlogLevel())
	o := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "text" {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(&jsonHandler{slow: slog.NewJSONHandler(w, o), level: level, w: w})
}

// jsonHandler is slog.JSONHandler with a short way for the lines of calls, of
// which there is one for each: the same line at a quarter of the cost where its
// values are plain.
type jsonHandler struct {
	slow  slog.Handler
	level slog.Leveler
	w     *logWriter
}

func (h *jsonHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs and WithGroup return slog's own handler.
func (h *jsonHandler) WithAttrs(a []slog.Attr) slog.Handler { return h.slow.WithAttrs(a) }
func (h *jsonHandler) WithGroup(name string) slog.Handler   { return h.slow.WithGroup(name) }

// Handle leaves a record to slog: only the lines of calls are many.
func (h *jsonHandler) Handle(ctx context.Context, r slog.Record) error { return h.slow.Handle(ctx, r) }

var _ web.LineHandler = (*jsonHandler)(nil)

// HandleLine writes a line as slog.JSONHandler does.
func (h *jsonHandler) HandleLine(t time.Time, level slog.Level, msg string, attrs []slog.Attr) {
	plain := plainText(msg)
	for i := range attrs {
		switch v := &attrs[i].Value; v.Kind() {
		case slog.KindInt64, slog.KindBool:
		case slog.KindString:
			plain = plain && plainText(v.String())
		default:
			plain = false
		}
		plain = plain && plainText(attrs[i].Key)
	}
	if !plain {
		r := slog.NewRecord(t, level, msg, 0)
		r.AddAttrs(attrs...)
		_ = h.slow.Handle(context.Background(), r)
		return
	}
	_ = h.w.line(func(b []byte) []byte { return appendLine(b, t, level, msg, attrs) })
}

func appendLine(b []byte, t time.Time, level slog.Level, msg string, attrs []slog.Attr) []byte {
	b = append(b, `{"time":"`...)
	b = t.AppendFormat(b, time.RFC3339Nano)
	b = append(append(append(b, `","level":"`...), level.String()...), `","msg":"`...)
	b = append(append(b, msg...), '"')
	for i := range attrs {
		b = append(append(append(b, ',', '"'), attrs[i].Key...), '"', ':')
		switch v := &attrs[i].Value; v.Kind() {
		case slog.KindInt64:
			b = strconv.AppendInt(b, v.Int64(), 10)
		case slog.KindBool:
			b = strconv.AppendBool(b, v.Bool())
		default:
			b = append(append(append(b, '"'), v.String()...), '"')
		}
	}
	return append(b, '}', '\n')
}

// plainText reports whether s stands in JSON as it is.
func plainText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
