package test

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"bulkhead/config"
	"bulkhead/test/servers"
)

// composeFile is the part of deploy/compose.yaml that is looked at here: there is
// nothing on the machines that test this which could run it.
type composeFile struct {
	Services map[string]composeService
	Networks map[string]*struct{ Internal bool }
	Volumes  map[string]any
	Configs  map[string]struct{ Content string }
}

type composeService struct {
	Image       string
	Build       any
	Profiles    []string
	Restart     string
	Environment map[string]string
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	Healthcheck *struct{ Test []string }
	Volumes     []string
	Ports       []string
	Networks    []string
	Configs     []struct{ Source string }
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	text, err := os.ReadFile("../deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c composeFile
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Services) < 5 {
		t.Fatalf("%d services", len(c.Services))
	}
	return c
}

// reference is what the file names, and where it has to be.
func (c composeFile) references(t *testing.T, name string, s composeService) {
	for other, need := range s.DependsOn {
		o, ok := c.Services[other]
		switch {
		case !ok:
			t.Errorf("%s depends on %s, which is not there", name, other)
		case need.Condition == "service_healthy" && o.Healthcheck == nil:
			t.Errorf("%s waits for the health of %s, which nobody looks at", name, other)
		case need.Condition == "service_completed_successfully" && o.Restart != "no":
			t.Errorf("%s waits for the end of %s, which is started again", name, other)
		case len(o.Profiles) > 0 && !slices.Equal(o.Profiles, s.Profiles):
			t.Errorf("%s depends on %s of another profile", name, other)
		}
	}
	for _, n := range s.Networks {
		if _, ok := c.Networks[n]; !ok {
			t.Errorf("%s is in network %s, which is not there", name, n)
		}
	}
	for _, one := range s.Configs {
		if c.Configs[one.Source].Content == "" {
			t.Errorf("%s has config %s, which is not there", name, one.Source)
		}
	}
	for _, v := range s.Volumes {
		from, _, _ := strings.Cut(v, ":")
		if strings.HasPrefix(from, ".") {
			if _, err := os.Stat(filepath.Join("../deploy", from)); err != nil {
				t.Errorf("%s: %s", name, err)
			}
		} else if _, ok := c.Volumes[from]; !ok {
			t.Errorf("%s has volume %s, which is not there", name, from)
		}
	}
}

func TestCompose(t *testing.T) {
	c := readCompose(t)
	pinned := regexp.MustCompile(`^[a-z/]+:v?\d+\.\d+(\.\d+)?$`)
	secret := regexp.MustCompile(`PASSWORD|SECRET|MASTER_KEY|TOKEN|POSTGRES_.*URL|AUTH`)
	volumes := map[string]string{}
	for name, s := range c.Services {
		c.references(t, name, s)
		gateway := strings.HasPrefix(name, "gateway-")
		if s.Build == nil && !pinned.MatchString(s.Image) {
			t.Errorf("the image of %s is %s, not a certain version", name, s.Image)
		}
		if s.Healthcheck == nil && s.Restart != "no" {
			t.Errorf("nobody looks at the health of %s", name)
		}
		for _, v := range s.Volumes {
			if from, _, _ := strings.Cut(v, ":"); volumes[from] != "" {
				t.Errorf("%s and %s share %s", name, volumes[from], from)
			} else {
				volumes[from] = name
			}
		}
		// Nobody but the gateways is reached from outside, or reaches out.
		for _, p := range s.Ports {
			if !gateway || !strings.HasPrefix(p, "127.0.0.1:") || !strings.HasSuffix(p, ":8080") {
				t.Errorf("%s publishes %s", name, p)
			}
		}
		for _, n := range s.Networks {
			if net := c.Networks[n]; !gateway && (net == nil || !net.Internal) {
				t.Errorf("%s is in network %s", name, n)
			}
		}
		if len(s.Networks) == 0 {
			t.Errorf("%s is in the default network", name)
		}
		for variable, value := range s.Environment {
			if secret.MatchString(variable) && !strings.Contains(value, "${") {
				t.Errorf("%s has a fixed %s", name, variable)
			}
		}
	}
}

// interpolate does what compose does with ${NAME:-default}, ${NAME:?what it is}
// and $$, or returns the name of the variable that is missing.
func interpolate(text string, vars map[string]string) (string, error) {
	var missing error
	re := regexp.MustCompile(`\$\$|\$\{(\w+)(:-|:\?)([^}]*)\}`)
	out := re.ReplaceAllStringFunc(text, func(found string) string {
		m := re.FindStringSubmatch(found)
		switch v := vars[m[1]]; {
		case found == "$$":
			return "$"
		case v != "":
			return v
		case m[2] == ":?":
			missing = fmt.Errorf("%s is missing", m[1])
			return ""
		}
		return m[3]
	})
	return out, missing
}

// variables is the environment of a service.
func (c composeFile) variables(service string, vars map[string]string) ([]string, error) {
	var env []string
	for name, value := range c.Services[service].Environment {
		text, err := interpolate(value, vars)
		if err != nil {
			return nil, err
		}
		env = append(env, name+"="+text)
	}
	return env, nil
}

func composeVars() map[string]string {
	return map[string]string{
		"POSTGRES_PASSWORD": "one", "OWNER_PASSWORD": "two", "RUNTIME_PASSWORD": "three", "REDIS_PASSWORD": "five",
		"MASTER_KEY": strings.Repeat("a7", 32), "VAULT_ROLE_ID": "role", "VAULT_SECRET_ID": "four",
	}
}

// TestComposeConfiguration has the gateway's own reader look at what the file
// gives the gateways.
func TestComposeConfiguration(t *testing.T) {
	c := readCompose(t)
	// What the image sets besides.
	image := []string{"BULKHEAD_DATA=" + t.TempDir()}
	for _, service := range []string{"gateway-1", "gateway-2", "migrate"} {
		env, err := c.variables(service, composeVars())
		if err != nil {
			t.Fatal(err)
		}
		conf, err := config.Load("", append(env, image...))
		if err != nil {
			t.Errorf("%s: %s", service, err)
			continue
		}
		if owner := !conf.PostgresOwnerURL.Empty(); owner != (service == "migrate") || conf.PostgresURL.Empty() {
			t.Errorf("%s has the owner's URL: %v", service, owner)
		}
		if service != "migrate" && (conf.VaultAddr == "" || conf.MasterKeyBytes() == nil || conf.MakesDemo()) {
			t.Errorf("%s: Vault %q, demo %v", service, conf.VaultAddr, conf.MakesDemo())
		}
	}
	// What must be set is asked for by name.
	f := func(name, service string) {
		t.Helper()
		vars := composeVars()
		delete(vars, name)
		if _, err := c.variables(service, vars); err == nil || err.Error() != name+" is missing" {
			t.Errorf("without %s: %v", name, err)
		}
	}
	f("POSTGRES_PASSWORD", "postgres")
	f("OWNER_PASSWORD", "postgres")
	f("OWNER_PASSWORD", "migrate")
	f("RUNTIME_PASSWORD", "gateway-1")
	f("MASTER_KEY", "gateway-2")
}

// TestComposePostgres has a real server prepared as the image of PostgreSQL would,
// and migrated with the file's two users.
func TestComposePostgres(t *testing.T) {
	c, vars := readCompose(t), composeVars()
	admin, err := url.Parse(servers.Start(t, "postgres").Var("POSTGRES_URL"))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := admin.User.Password()
	init := exec.Command("../deploy/postgres-init.sh")
	init.Env = append(os.Environ(), "PGHOST="+admin.Hostname(), "PGPORT="+admin.Port(), "PGPASSWORD="+password, "OWNER_PASSWORD="+vars["OWNER_PASSWORD"])
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("%s: %s", err, out)
	}
	env, err := c.variables("migrate", vars)
	if err != nil {
		t.Fatal(err)
	}
	for i := range env {
		env[i] = strings.Replace(env[i], "@postgres:5432/", "@"+admin.Host+"/", 1)
	}
	g := prepare(t, "", env...)
	for _, command := range []string{"migrate", "check"} {
		if r := g.command(t, nil, "", command, "-config", filepath.Join(g.dir(), "bulkhead.yaml")); r.code != 0 {
			t.Fatalf("gateway %s: %s%s", command, r.out, r.err)
		}
	}
}

// TestComposePrometheus: Prometheus has the configuration that is tested in
// TestPrometheusRules, and asks each gateway.
func TestComposePrometheus(t *testing.T) {
	c := readCompose(t)
	if !slices.Contains(c.Services["prometheus"].Volumes, "./prometheus:/etc/prometheus:ro") {
		t.Errorf("Prometheus has %q", c.Services["prometheus"].Volumes)
	}
	var config struct {
		Jobs []struct {
			Name   string                       `yaml:"job_name"`
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, filepath.Join(promDir, "prometheus.yml"), &config)
	if len(config.Jobs) != 1 || config.Jobs[0].Name != "bulkhead" || len(config.Jobs[0].Static) != 1 {
		t.Fatalf("%+v", config)
	}
	var want []string
	for name, s := range c.Services {
		if strings.HasPrefix(name, "gateway-") {
			_, port, _ := strings.Cut(s.Environment["BULKHEAD_OPS_LISTEN"], ":")
			want = append(want, name+":"+port)
		}
	}
	slices.Sort(want)
	if got := config.Jobs[0].Static[0].Targets; !slices.Equal(got, want) {
		t.Errorf("Prometheus asks %q, there are %q", got, want)
	}
}
