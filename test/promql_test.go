package test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// promQuery is what a query asks for.
type promQuery struct {
	// metrics are the names of metrics with the labels that are matched.
	metrics map[string][]string
	// labels are those that are summed or matched by.
	labels []string
}

var (
	promToken = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|[a-zA-Z_:][a-zA-Z0-9_:]*|\[[^\]]*\]|[0-9][0-9.a-z]*|=~|!~|!=|==|<=|>=|\S`)
	promName  = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
)

// asked reads a query of Prometheus as far as it names metrics and labels. That
// it is one at all is for Prometheus to say.
func asked(expr string) (q promQuery) {
	q.metrics = map[string][]string{}
	tokens := promToken.FindAllString(expr, -1)
	next := func(i int) string {
		if i+1 < len(tokens) {
			return tokens[i+1]
		}
		return ""
	}
	for i := 0; i < len(tokens); i++ {
		switch name := tokens[i]; {
		case !promName.MatchString(name), slices.Contains([]string{"and", "or", "unless", "bool"}, name):
		case name == "offset":
			i++ // how long
		case slices.Contains([]string{"by", "without", "on", "ignoring", "group_left", "group_right"}, name):
			for i++; i < len(tokens) && tokens[i] != ")"; i++ {
				if promName.MatchString(tokens[i]) {
					q.labels = append(q.labels, tokens[i])
				}
			}
		case next(i) == "(": // a function
		case slices.Contains([]string{"sum", "max", "min", "count"}, name): // of what is by labels
		default:
			labels := q.metrics[name]
			if next(i) == "{" {
				for i += 2; i < len(tokens) && tokens[i] != "}"; i++ {
					if promName.MatchString(tokens[i]) {
						labels = append(labels, tokens[i])
					}
				}
			}
			q.metrics[name] = labels
		}
	}
	return q
}

// problems says what a query asks for that none of the known metrics has. Each
// has job and instance as well, which Prometheus adds.
func (q promQuery) problems(known map[string][]string) (all []string) {
	here := []string{"job", "instance"}
	for name, matched := range q.metrics {
		labels, ok := known[name]
		if !ok {
			all = append(all, "there is no metric "+name)
			continue
		}
		here = append(here, labels...)
		for _, l := range matched {
			if !slices.Contains(labels, l) && l != "job" && l != "instance" {
				all = append(all, name+" has no label "+l)
			}
		}
	}
	for _, l := range q.labels {
		if !slices.Contains(here, l) {
			all = append(all, "nothing has the label "+l)
		}
	}
	if len(q.metrics) == 0 {
		all = append(all, "no metric is asked for")
	}
	slices.Sort(all)
	return all
}

// recordedLabels are those of what a recording rule makes, as its name says in
// its first part.
func recordedLabels(name string) []string {
	level, _, ok := strings.Cut(name, ":")
	switch {
	case !ok:
		return nil
	case level == "budget":
		return []string{"company", "kind", "project", "period"}
	}
	return strings.Split(level, "_")
}

func TestAsked(t *testing.T) {
	known := map[string][]string{"a_total": {"x", "y"}, "b": {"y"}, "c:b:max": {"c"}}
	f := func(expr string, want ...string) {
		t.Helper()
		if got := asked(expr).problems(known); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
	f(`a_total`)
	f(`sum by (x, instance) (rate(a_total{y=~"p|q", job="j"}[5m] offset 1h)) / 60 > bool 0.5e3`)
	f(`topk(20, sum by (y) (b)) or vector(0)`)
	f(`histogram_quantile(0.99, sum(rate(a_total[$__rate_interval])) by (x))`)
	f(`c:b:max{c!="other"} unless on (c) c:b:max`)
	f(`a_tota`, "there is no metric a_tota")
	f(`b{x="1"}`, "b has no label x")
	f(`sum by (c) (b)`, "nothing has the label c")
	f(`sum without (z) (b) + d:b:max`, "nothing has the label z", "there is no metric d:b:max")
	f(`b unless ignoring (c) b{y="x{z=1}"}`, "nothing has the label c")
	f(`vector(1)`, "no metric is asked for")
}
