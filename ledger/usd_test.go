package ledger

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestUSD(t *testing.T) {
	f := func(nano int64, want string) {
		t.Helper()
		if got := FormatUSD(nano); got != want {
			t.Errorf("FormatUSD(%d) = %q, want %q", nano, got, want)
		}
		if got, err := ParseUSD(want); err != nil || got != nano {
			t.Errorf("ParseUSD(%q) = %d, %v", want, got, err)
		}
	}
	f(0, "0")
	f(1, "0.000000001")
	f(123_000, "0.000123")
	f(999_999_999, "0.999999999")
	f(1_000_000_000, "1")
	f(12_500_000_000, "12.5")
	f(-12_500_000_000, "-12.5")
	f(-1, "-0.000000001")
	f(9_000_000*nanoPerUSD, "9000000")
	f(math.MaxInt64, "9223372036.854775807")
	f(math.MinInt64, "-9223372036.854775808")
}

func TestParseUSD(t *testing.T) {
	f := func(s string, nano int64, want error) {
		t.Helper()
		if got, err := ParseUSD(s); got != nano || !errors.Is(err, want) {
			t.Errorf("%q: got %d, %v, want %d, %v", s, got, err, nano, want)
		}
	}
	// More than one way to write it.
	f("1.50", 1_500_000_000, nil)
	f("001.000000000000", 1_000_000_000, nil)
	f("-0", 0, nil)

	for _, s := range []string{"", "-", ".", "1.", ".5", "+1", " 1", "1 ", "1e3", "0x1", "1,5", "1.2.3", "--1", "1.-5", "NaN", "１", "1_000"} {
		f(s, 0, ErrUSDForm)
	}
	f("0.0000000001", 0, ErrUSDFine)
	f("9223372036.854775808", 0, ErrUSDRange)
	f("-9223372036.854775809", 0, ErrUSDRange)
	f(strings.Repeat("9", 400), 0, ErrUSDRange)
}

func FuzzParseUSD(f *testing.F) {
	f.Add("12.5")
	f.Add("-0.000000001")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseUSD(s)
		if err != nil {
			return
		}
		if again, err := ParseUSD(FormatUSD(n)); err != nil || again != n {
			t.Errorf("%q is %d, written %q, read %d, %v", s, n, FormatUSD(n), again, err)
		}
	})
}
