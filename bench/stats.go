//go:build linux

package main

import (
	"math"
	"slices"
	"time"
)

// quantile is the smallest value that at least the fraction q of the sorted
// values does not exceed (nearest rank); 0 for none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// spread is a number that was measured once a round.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`

	Rounds []float64 `json:"rounds"`
}

// spreadOf is zero for no values. The median of an even number of values is
// the mean of the middle two.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return spread{Median: (v[(n-1)/2] + v[n/2]) / 2, Min: v[0], Max: v[n-1], Rounds: values}
}

// ratios divides round by round, so that what slows a whole round down does
// not show. The slices have the same length; a zero divisor is left out.
func ratios(a, b []float64) []float64 {
	var r []float64
	for i := range a {
		if b[i] != 0 {
			r = append(r, a[i]/b[i])
		}
	}
	return r
}

func differences(a, b []float64) []float64 {
	d := make([]float64, len(a))
	for i := range a {
		d[i] = a[i] - b[i]
	}
	return d
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// latency is the distribution of one or more rounds, in microseconds.
type latency struct {
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
}

// latencyOf sorts the samples in place.
func latencyOf(samples []float64) latency {
	slices.Sort(samples)
	return latency{quantile(samples, 0.5), quantile(samples, 0.99), quantile(samples, 0.999)}
}
