package config

import (
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. In the file it is an integer, or one followed by
// B, KiB, MiB or GiB (powers of 1024).
type Size int64

// The units of a Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// String returns s in the largest unit that needs no fraction, such as "20MiB".
func (s Size) String() string {
	f := func(unit Size, name string) string { return strconv.FormatInt(int64(s/unit), 10) + name }
	switch {
	case s == 0:
		return "0"
	case s%GiB == 0:
		return f(GiB, "GiB")
	case s%MiB == 0:
		return f(MiB, "MiB")
	case s%KiB == 0:
		return f(KiB, "KiB")
	}
	return f(1, "")
}

// parseSize is the opposite of String. It also takes "512B".
func parseSize(text string) (Size, bool) {
	unit := Size(1)
	if number, ok := strings.CutSuffix(text, "B"); ok {
		text = number
		for suffix, u := range map[string]Size{"Ki": KiB, "Mi": MiB, "Gi": GiB} {
			if number, ok := strings.CutSuffix(text, suffix); ok {
				text, unit = number, u
			}
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > int64(1<<63-1)/int64(unit) || n < 0 {
		return 0, false
	}
	return Size(n) * unit, true
}

// short is d.String() without the zeros at its end: "5m", not "5m0s".
func short(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
