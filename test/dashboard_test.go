package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// dashboard is the part of a dashboard of Grafana that is looked at here.
type dashboard struct {
	UID, Title, Description string
	Templating              struct {
		List []struct {
			Name, Type string
			Definition string
		}
	}
	Panels []panel
}

type panel struct {
	ID          int
	Type, Title string
	Datasource  struct{ Type, UID string }
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct {
		Defaults struct{ Unit string }
	}
	Targets []struct {
		RefID, Expr, LegendFormat string
		Datasource                struct{ Type, UID string }
	}
}

// dashboards reads all dashboards, by the names of their files.
func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	paths, err := filepath.Glob("../deploy/grafana/dashboards/*.json")
	if err != nil || len(paths) < 2 {
		t.Fatalf("%d dashboards: %v", len(paths), err)
	}
	all := map[string]dashboard{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %s", path, err)
		}
		all[filepath.Base(path)] = d
	}
	return all
}

// grafanaUnits are the units that panels may have, of Grafana's own list.
const grafanaUnits = "currencyUSD percentunit s bytes none reqps cps wps"

// TestDashboards: each panel says what it shows and in what unit, and none lies
// on another.
func TestDashboards(t *testing.T) {
	uids := map[string]string{}
	for name, d := range dashboards(t) {
		if d.Title == "" || d.Description == "" || uids[d.UID] != "" || d.UID == "" {
			t.Errorf("%s: title %q, uid %q, which %q has too", name, d.Title, d.UID, uids[d.UID])
		}
		uids[d.UID] = name
		variables := map[string]bool{"__rate_interval": true}
		for _, v := range d.Templating.List {
			variables[v.Name] = true
		}
		ids, taken := map[int]bool{}, map[[2]int]string{}
		for _, p := range d.Panels {
			if p.Title == "" || ids[p.ID] {
				t.Errorf("%s: panel %d %q", name, p.ID, p.Title)
			}
			ids[p.ID] = true
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s: %q lies on %q or beyond the border", name, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
			if p.Type == "row" {
				continue
			}
			if unit := p.FieldConfig.Defaults.Unit; unit == "" || !strings.Contains(" "+grafanaUnits+" ", " "+unit+" ") {
				t.Errorf("%s: %q has unit %q", name, p.Title, unit)
			}
			if len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
				t.Errorf("%s: %q has %d queries, of %q", name, p.Title, len(p.Targets), p.Datasource.UID)
			}
			for _, q := range p.Targets {
				if q.Expr == "" || q.Datasource.UID != "${datasource}" {
					t.Errorf("%s: %q asks %q of %q", name, p.Title, q.Expr, q.Datasource.UID)
				}
				for _, v := range dashboardVariable.FindAllStringSubmatch(q.Expr, -1) {
					if !variables[v[1]] {
						t.Errorf("%s: %q asks with the variable %s, which is not there", name, p.Title, v[1])
					}
				}
			}
		}
	}
}

var (
	dashboardVariable = regexp.MustCompile(`\$\{?(\w+)`)
	labelValues       = regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`)
	legendLabel       = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
)

// asks are the queries of a dashboard with the place where each stands: those of
// its panels, and of its variables.
func (d dashboard) asks(t *testing.T, name string, f func(place, expr string, labels []string)) {
	t.Helper()
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := labelValues.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Errorf("%s: the variable %s is %q", name, v.Name, v.Definition)
			continue
		}
		f(name+", variable "+v.Name, m[1], []string{m[2]})
	}
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			var labels []string
			for _, l := range legendLabel.FindAllStringSubmatch(q.LegendFormat, -1) {
				labels = append(labels, l[1])
			}
			f(name+", "+p.Title, q.Expr, labels)
		}
	}
}

// TestGrafanaProvisioned: Grafana finds the dashboards and Prometheus where the
// compose file has them.
func TestGrafanaProvisioned(t *testing.T) {
	var sources struct {
		Datasources []struct{ UID, Type, URL string }
	}
	readYAML(t, "../deploy/grafana/provisioning/datasources/prometheus.yml", &sources)
	c := readCompose(t)
	if len(sources.Datasources) != 1 || sources.Datasources[0].URL != "http://prometheus:9090" || c.Services["prometheus"].Image == "" {
		t.Errorf("Grafana asks %+v", sources)
	}
	var providers struct {
		Providers []struct {
			Type    string
			Options struct{ Path string }
		}
	}
	readYAML(t, "../deploy/grafana/provisioning/dashboards/bulkhead.yml", &providers)
	if len(providers.Providers) != 1 {
		t.Fatalf("%+v", providers)
	}
	mounts := strings.Join(c.Services["grafana"].Volumes, " ")
	for _, want := range []string{"./grafana/provisioning:/etc/grafana/provisioning:ro", "./grafana/dashboards:" + providers.Providers[0].Options.Path + ":ro"} {
		if !strings.Contains(mounts, want) {
			t.Errorf("Grafana has no %s: %s", want, mounts)
		}
	}
}
