package test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"bulkhead/test/servers"
)

// promDir has the rules for Prometheus and their cases.
const promDir = "../deploy/prometheus"

// promRule is an alert or a recording rule.
type promRule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

// promRules reads all rules.
func promRules(t *testing.T) (all []promRule) {
	t.Helper()
	for _, path := range promFiles(t, "rules") {
		var file struct {
			Groups []struct {
				Name  string
				Rules []promRule
			}
		}
		readYAML(t, path, &file)
		for _, g := range file.Groups {
			all = append(all, g.Rules...)
		}
	}
	if len(all) < 30 {
		t.Fatalf("%d rules", len(all))
	}
	return all
}

func promFiles(t *testing.T, folder string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(promDir, folder, "*.yml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files in %s: %v", folder, err)
	}
	return paths
}

func readYAML(t *testing.T, path string, out any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(text, out)
	}
	if err != nil {
		t.Fatalf("%s: %s", path, err)
	}
}

// promtool runs Prometheus' tool in the folder of the rules.
func promtool(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	script, err := servers.Script("promtool.sh")
	if err != nil {
		t.Fatal(err)
	}
	_, err = exec.Command(script).Output() // installs it
	servers.Require(t, err)
	cmd := exec.Command(script, args...)
	cmd.Dir = promDir
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// TestPrometheusRules has Prometheus' tool look at the rules and run their cases.
func TestPrometheusRules(t *testing.T) {
	if out, err := promtool(t, "check", "config", "--lint-fatal", "prometheus.yml"); err != nil {
		t.Errorf("%s: %s", err, out)
	}
	args := []string{"test", "rules"}
	for _, path := range promFiles(t, "tests") {
		args = append(args, filepath.Join("tests", filepath.Base(path)))
	}
	if out, err := promtool(t, args...); err != nil {
		t.Errorf("%s: %s", err, out)
	}
}

// TestPrometheusCasesFail: a case that expects what does not happen fails, or
// the cases say nothing.
func TestPrometheusCasesFail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wrong.yml")
	rules, err := filepath.Abs(filepath.Join(promDir, "rules"))
	if err != nil {
		t.Fatal(err)
	}
	f := func(value, want string) {
		t.Helper()
		text := fmt.Sprintf("rule_files: [%s/*.yml]\ntests:\n- interval: 1m\n  input_series: [{series: 'bulkhead_ledger_lag_seconds{instance=\"a\"}', values: %s}]\n"+
			"  alert_rule_test: [{eval_time: 5m, alertname: BulkheadLedgerLag}]\n", rules, value)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := promtool(t, "test", "rules", path)
		if (err == nil) != (want == "") || !strings.Contains(out, want) {
			t.Errorf("%s: %v: %s", value, err, out)
		}
	}
	f("0x10", "")
	f("100x10", "FAILED")
}

// TestAlertsAreTested: each alert has a case in which it fires and one in which
// it does not, says what it is, and is in the documentation, which has no other.
func TestAlertsAreTested(t *testing.T) {
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, path := range promFiles(t, "tests") {
		var file struct {
			Tests []struct {
				Rules []struct {
					Alertname string
					Alerts    []any `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		readYAML(t, path, &file)
		for _, one := range file.Tests {
			for _, r := range one.Rules {
				if len(r.Alerts) > 0 {
					fires[r.Alertname] = true
				} else {
					quiet[r.Alertname] = true
				}
			}
		}
	}
	described := documentedAlerts(t)
	alerts := map[string]bool{}
	for _, r := range promRules(t) {
		if r.Alert == "" {
			continue
		}
		if alerts[r.Alert] {
			t.Errorf("two alerts are called %s", r.Alert)
		}
		alerts[r.Alert] = true
		if !fires[r.Alert] || !quiet[r.Alert] {
			t.Errorf("%s: a case in which it fires: %v, in which it does not: %v", r.Alert, fires[r.Alert], quiet[r.Alert])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || len(r.Annotations) != 2 || len(r.Labels) != 1 {
			t.Errorf("%s has the annotations %v and the labels %v", r.Alert, r.Annotations, r.Labels)
		}
		if got, want := described[r.Alert], r.Labels["severity"]; got != want || !slices.Contains([]string{"page", "ticket", "info"}, want) {
			t.Errorf("%s has severity %q, in the documentation %q", r.Alert, want, got)
		}
	}
	for name := range merged(fires, quiet) {
		if !alerts[name] {
			t.Errorf("there are cases of %s, and no such alert", name)
		}
	}
	for name := range described {
		if !alerts[name] {
			t.Errorf("the documentation has %s, and there is no such alert", name)
		}
	}
}

func merged(all ...map[string]bool) map[string]bool {
	out := map[string]bool{}
	for _, m := range all {
		maps.Copy(out, m)
	}
	return out
}

// documentedAlerts are the alerts in docs/metrics.md with their severity.
func documentedAlerts(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	name, all := regexp.MustCompile("`(Bulkhead[A-Za-z0-9]+)`"), map[string]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !strings.HasPrefix(line, "| `Bulkhead") {
			continue
		}
		names, severities := name.FindAllStringSubmatch(cells[1], -1), strings.Split(cells[2], ",")
		if len(names) != len(severities) || strings.TrimSpace(cells[3]) == "" || strings.TrimSpace(cells[4]) == "" {
			t.Errorf("the documentation has %q", line)
			continue
		}
		for i := range names {
			all[names[i][1]] = strings.TrimSpace(severities[i])
		}
	}
	return all
}
