//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// report is what a run leaves behind, the form of bench/results/*.json.
type report struct {
	Machine machine           `json:"machine"`
	Commit  string            `json:"commit"` // "+changes" when the tree differs, "none" without one
	Date    time.Time         `json:"date"`
	Flags   map[string]string `json:"flags"`

	CPU       []cpuResult      `json:"cpu,omitempty"`
	Latency   []latencyRow     `json:"latency,omitempty"`
	Streams   []streamRow      `json:"streams,omitempty"`
	Companies *companiesResult `json:"companies,omitempty"`
	Redis     *redisResult     `json:"redis,omitempty"`
	Grounded  []groundedRow    `json:"grounded,omitempty"`
}

type machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	MemGiB float64 `json:"memory_gib"`
	Go     string  `json:"go"`
	Load   string  `json:"load_average_at_start"`
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	m.CPU = field("/proc/cpuinfo", "model name")
	m.Load = strings.TrimSpace(read("/proc/loadavg"))
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		m.MemGiB = float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	}
	return m
}

func read(file string) string {
	b, _ := os.ReadFile(file)
	return string(b)
}

// field is the value of the first "name : value" line of a file.
func field(file, name string) string {
	for line := range strings.Lines(read(file)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "none"
	}
	c := strings.TrimSpace(string(out))
	if out, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output(); err != nil || len(out) > 0 {
		c += "+changes"
	}
	return c
}

// save writes the report as JSON.
func (r *report) save(file string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// print writes the tables, ratios first: they are what two runs on a noisy
// machine may be compared by.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d cores, %s, commit %s, load before %s\n", r.Machine.CPU, r.Machine.Cores, r.Machine.Go, r.Commit, r.Machine.Load)
	if len(r.CPU) > 0 {
		fmt.Fprintf(w, "\n## CPU per call: ratios, median of rounds (least to most)\n\n| case | of | to | factor |\n|---|---|---|---|\n")
		for _, c := range r.CPU {
			printRatios(w, c)
		}
		fmt.Fprintf(w, "\n## CPU per call\n\n| case | target | CPU us/call | calls/s | RSS MiB | calls |\n|---|---|---|---|---|---|\n")
		for _, c := range r.CPU {
			printRows(w, c)
		}
	}
	if len(r.Latency) > 0 {
		fmt.Fprintf(w, "\n## Latency at %s calls/s, us, over direct\n\n| target | +p50 (rounds) | +p99 (rounds) | +p999 | p50 | p99 | p999 | samples |\n|---|---|---|---|---|---|---|---|\n", r.Flags["rate"])
		for _, l := range r.Latency {
			fmt.Fprintf(w, "| %s | %s | %s | %.0f | %.0f | %.0f | %.0f | %d |\n", l.Target,
				show(l.AddedP50, 0), show(l.AddedP99, 0), l.Added.P999, l.All.P50, l.All.P99, l.All.P999, l.Samples)
		}
	}
	if len(r.Streams) > 0 {
		fmt.Fprintf(w, "\n## Open streams\n\n| target | KiB/stream | streams | RSS MiB before | RSS MiB open |\n|---|---|---|---|---|\n")
		for _, s := range r.Streams {
			fmt.Fprintf(w, "| %s | %s | %d | %.0f | %.0f |\n", s.Target, show(s.PerStream, 1), s.Streams, s.Before, s.Open)
		}
	}
	if r.Companies != nil {
		r.Companies.print(w)
	}
	if r.Redis != nil {
		r.Redis.print(w)
	}
	if len(r.Grounded) > 0 {
		printGrounded(w, r.Grounded)
	}
}

func (c *companiesResult) print(w io.Writer) {
	fmt.Fprintf(w, "\n## Many companies\n\n| case | of | to | factor |\n|---|---|---|---|\n")
	printRatios(w, c.CPU)
	fmt.Fprintf(w, "\n| case | target | CPU us/call | calls/s | RSS MiB | calls |\n|---|---|---|---|---|---|\n")
	printRows(w, c.CPU)
	fmt.Fprintf(w, "\n| companies | live heap MiB idle | warm | RSS MiB idle | warm | created in s |\n|---|---|---|---|---|---|\n")
	for _, r := range c.Rows {
		fmt.Fprintf(w, "| %d | %.1f | %.1f | %.1f | %.1f | %.1f |\n", r.Companies, r.HeapIdle, r.HeapWarm, r.RSSIdle, r.RSSWarm, r.Create)
	}
	fmt.Fprintf(w, "| KiB per company | %.2f | %.2f | %.2f | %.2f | |\n", c.HeapIdleKiB, c.HeapWarmKiB, c.RSSIdleKiB, c.RSSWarmKiB)
}

func printRatios(w io.Writer, c cpuResult) {
	for _, r := range c.Ratios {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", c.Case, r.Of, r.To, show(r.Factor, 2))
	}
}

func printRows(w io.Writer, c cpuResult) {
	for _, row := range c.Rows {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %.0f | %d |\n", c.Case, row.Target, show(row.CPU, 1), show(row.RPS, 0), row.RSS, row.Calls)
	}
}

func show(s spread, digits int) string {
	return fmt.Sprintf("%.*f (%.*f to %.*f)", digits, s.Median, digits, s.Min, digits, s.Max)
}
