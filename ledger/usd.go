package ledger

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

const (
	nanoPerUSD = 1_000_000_000
	nanoDigits = 9
)

// FormatUSD writes nano-USD (1e-9 USD) as a decimal number of USD, exactly and
// without zeros at the end: 123000 is "0.000123", 0 is "0".
func FormatUSD(nano int64) string {
	u := uint64(nano)
	b := make([]byte, 0, 24)
	if nano < 0 {
		b, u = append(b, '-'), -u
	}
	b = strconv.AppendUint(b, u/nanoPerUSD, 10)
	rest := u % nanoPerUSD
	if rest == 0 {
		return string(b)
	}
	b = append(b, '.')
	for unit := uint64(nanoPerUSD / 10); rest > 0; unit /= 10 {
		b = append(b, byte('0'+rest/unit))
		rest %= unit
	}
	return string(b)
}

// The errors of ParseUSD.
var (
	ErrUSDForm  = errors.New(`not an amount of USD; write it like "12.5"`)
	ErrUSDFine  = errors.New("an amount of USD has at most 9 digits after the point")
	ErrUSDRange = errors.New("an amount of USD this large cannot be counted")
)

// ParseUSD reads a decimal number of USD, such as "12.5" or "-0.000123", as
// nano-USD. There is no exponent, no sign "+", no space, and at least one digit
// on both sides of a point.
func ParseUSD(s string) (nano int64, err error) {
	number, negative := strings.CutPrefix(s, "-")
	whole, fraction, point := strings.Cut(number, ".")
	if !digits(whole) || point && !digits(fraction) {
		return 0, ErrUSDForm
	}
	fraction = strings.TrimRight(fraction, "0")
	if len(fraction) > nanoDigits {
		return 0, ErrUSDFine
	}
	text := whole + fraction + strings.Repeat("0", nanoDigits-len(fraction))
	u, err := strconv.ParseUint(text, 10, 64)
	switch {
	case err != nil:
		return 0, ErrUSDRange
	case negative && u <= -math.MinInt64:
		return int64(-u), nil
	case !negative && u <= math.MaxInt64:
		return int64(u), nil
	}
	return 0, ErrUSDRange
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
