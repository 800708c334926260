package config

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
)

// Warnings returns what is allowed but should be meant, one line each. The start
// and a reload log them.
func (c *Config) Warnings() []string {
	var list []string
	warn := func(format string, a ...any) { list = append(list, fmt.Sprintf(format, a...)) }
	if !isLoopback(c.Listen) {
		if c.TLS.Cert == "" {
			warn("listen (%s) is reachable from other machines and has no tls: API keys travel in the clear unless a proxy in front ends TLS", c.Listen)
		}
		demo := filepath.Join(c.Data, "demo.json")
		if _, err := os.Stat(demo); err == nil {
			warn("listen (%s) is reachable from other machines and %s holds keys of the demo company that work: erase that company", c.Listen, demo)
		}
	}
	if !isLoopback(c.OpsListen) {
		warn("ops_listen (%s) is reachable from other machines: what is there is for the operator alone; keep it on a private network", c.OpsListen)
	}
	if c.Upstream.CompanyBaseURLs && c.Upstream.AllowPrivate {
		warn("upstream.company_base_urls and upstream.allow_private are both on: companies can reach every address this machine reaches")
	}
	if !c.PostgresURL.Empty() && c.RedisURL.Empty() {
		warn("postgres_url is set and redis_url is not: each gateway counts limits and budgets for itself, which is right for one gateway only")
	}
	if !c.PostgresURL.Empty() && c.S3URL == "" {
		warn("postgres_url is set and s3_url is not: files are kept in the data folder of the gateway that received them, which is right for one gateway only")
	}
	if inTheClear(c.S3URL) {
		warn("s3_url is http to another machine: files travel in the clear")
	}
	var names []string
	for name, one := range c.Providers {
		if inTheClear(one.BaseURL) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		warn("providers.%s.base_url is http on another machine: credentials and prompts travel in the clear", name)
	}
	if inTheClear(c.OTel.Endpoint) && !c.OTel.Headers.Empty() {
		warn("otel.endpoint is http on another machine: otel.headers travel in the clear")
	}
	return list
}

func inTheClear(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "http" && !isLoopback(u.Hostname())
}
