package web

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestMetricsDocumented: each metric that there is, whether or not anything was
// counted yet, is in the documentation with its labels, and says what it is. What
// a running gateway shows is looked at by TestMetrics in the folder test.
func TestMetricsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	must(t, err)
	quoted := regexp.MustCompile("`([a-z_]+)`")
	documented := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); strings.HasPrefix(line, "| `bulkhead_") {
			labels := []string{}
			for _, l := range quoted.FindAllStringSubmatch(cells[3], -1) {
				labels = append(labels, l[1])
			}
			documented[quoted.FindStringSubmatch(cells[1])[1]] = labels
		}
	}

	l := newLab(t, labOptions{})
	all := make(chan *prometheus.Desc)
	go func() {
		defer close(all)
		l.g.metrics.registry.Describe(all)
	}()
	desc := regexp.MustCompile(`^Desc\{fqName: "(\w+)", help: "([^"]*)".* variableLabels: \{(.*)\}\}$`)
	for d := range all {
		m := desc.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("what is %s?", d)
		}
		name, help := m[1], m[2]
		if !strings.HasPrefix(name, "bulkhead_") {
			continue
		}
		labels := strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' })
		want, ok := documented[name]
		slices.Sort(labels)
		slices.Sort(want)
		if !ok || !slices.Equal(labels, want) {
			t.Errorf("%s has the labels %q, documented: %v, with %q", name, labels, ok, want)
		}
		if !strings.HasSuffix(help, ".") {
			t.Errorf("%s says %q", name, help)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("%s is documented, and nowhere", name)
	}
}
