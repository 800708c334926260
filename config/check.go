package config

import (
	"crypto/tls"
	"net"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Check returns a *Problems with everything that is wrong with c, or nil. It
// looks at the files that tls and data name and opens nothing else.
func (c *Config) Check() error {
	var p Problems
	p.entries(c)
	p.addresses(c)
	if c.Data == "" {
		p.add("data", "must be a folder")
	} else if info, err := os.Stat(c.Data); err == nil && !info.IsDir() {
		p.add("data", "must be a folder, and there is a file of that name")
	}
	if text := c.MasterKey.Reveal(); text != "" && !strings.HasPrefix(text, "vault:v") && c.MasterKeyBytes() == nil {
		p.add("master_key", "must be 32 bytes, as 64 hex digits or as base64, or what gateway master seal made of them")
	}
	p.postgres("postgres_url", c.PostgresURL)
	p.postgres("postgres_owner_url", c.PostgresOwnerURL)
	if c.PostgresURL.Empty() && !c.PostgresOwnerURL.Empty() {
		p.add("postgres_url", "must be set where postgres_owner_url is: it names the user the gateway runs as")
	}
	p.redis(c.RedisURL)
	p.milvus(c)
	p.embeddings(&c.Embeddings)
	p.vault(c)
	for _, text := range strings.Fields(c.TrustedProxies) {
		if _, err := netip.ParsePrefix(text); err != nil {
			p.add("trusted_proxies", "must be networks such as 10.0.0.0/8, separated by spaces; %.64q is none", text)
		}
	}
	for _, origin := range c.Origins() {
		if u, err := url.Parse(origin); origin != "*" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || origin != u.Scheme+"://"+u.Host) {
			p.add("cors_origins", "must be origins such as https://app.example.com, without a path, separated by spaces, or *; %.64q is none", origin)
		}
	}
	if _, err := c.Budgets.Zone(); err != nil {
		p.add("budgets.time_zone", "must be a name of the IANA time zone database, such as Europe/Berlin or UTC; %.64q is none", c.Budgets.TimeZone)
	}
	p.s3(c)
	if k := c.Knowledge; k.CompanyTransfers > k.Transfers {
		p.add("knowledge.transfers", "must be at least knowledge.company_transfers (%d)", k.CompanyTransfers)
	}
	if k := c.Knowledge; k.FileBytes > k.CompanyBytes {
		p.add("knowledge.company_bytes", "must be at least knowledge.file_bytes (%v)", k.FileBytes)
	}
	if c.MaxBodyBytes > c.BodyBytesCompany {
		p.add("body_bytes_company", "must be at least max_body_bytes (%v), or a body of that size can never be accepted", c.MaxBodyBytes)
	}
	if c.BodyBytesCompany > c.BodyBytesTotal {
		p.add("body_bytes_total", "must be at least body_bytes_company (%v)", c.BodyBytesCompany)
	}
	if c.MaxFormBytes > c.FormBytesCompany {
		p.add("form_bytes_company", "must be at least max_form_bytes (%v), or a form of that size can never be accepted", c.MaxFormBytes)
	}
	if c.FormBytesCompany > c.FormBytesTotal {
		p.add("form_bytes_total", "must be at least form_bytes_company (%v)", c.FormBytesCompany)
	}
	if l := c.Limits; l.ConcurrentTotal > 0 && (l.ConcurrentRequests > l.ConcurrentTotal) {
		p.add("limits.concurrent_total", "must be at least limits.concurrent_requests (%d), or 0 for no limit", l.ConcurrentRequests)
	}
	if u := c.Upstream; u.Connect > u.Total || u.Header > u.Total || u.Idle > u.Total {
		p.add("upstream.total", "must be at least upstream.connect, header and idle")
	}
	p.providers(c.Providers)
	if c.OTel.Endpoint != "" {
		if wrong := checkURL(c.OTel.Endpoint); wrong != "" {
			p.add("otel.endpoint", "%s; what the collector must not see in a URL goes into otel.headers", wrong)
		}
	}
	if c.OTel.headers() == nil {
		p.add("otel.headers", "must be name=value, separated by commas, values percent-encoded")
	}
	p.tls(c.TLS)
	return p.err()
}

// postgres says what is wrong with the URL of a database. It holds a password,
// so nothing of it is repeated.
func (p *Problems) postgres(key string, s Secret) {
	if s.Empty() {
		return
	}
	u, err := url.Parse(s.Reveal())
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Host == "" || u.User.Username() == "" || strings.Trim(u.Path, "/") == "" {
		p.add(key, "must be postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	}
}

// redis says what is wrong with the URL of Redis. It may hold a password, so
// nothing of it is repeated.
func (p *Problems) redis(s Secret) {
	if s.Empty() {
		return
	}
	schemes := []string{"redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}
	u, err := url.Parse(s.Reveal())
	if err != nil {
		// A list of hosts is no URL to url.Parse where their ports follow.
		before, _, found := strings.Cut(s.Reveal(), "://")
		if !found || !slices.Contains(schemes, before) || !strings.Contains(before, "+") {
			p.add("redis_url", "must be redis://HOST:PORT, redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY or redis+cluster://HOST:PORT,HOST:PORT")
		}
		return
	}
	if !slices.Contains(schemes, u.Scheme) || u.Host == "" || strings.HasSuffix(u.Scheme, "+sentinel") && strings.Trim(u.Path, "/") == "" {
		p.add("redis_url", "must be redis://HOST:PORT, redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY or redis+cluster://HOST:PORT,HOST:PORT")
	}
}

// s3 says what is missing or too much.
func (p *Problems) s3(c *Config) {
	keys := c.S3AccessKey != "" || !c.S3SecretKey.Empty()
	if c.S3URL == "" {
		if keys || c.S3Redirect {
			p.add("s3_url", "must be set where s3_access_key, s3_secret_key or s3_redirect is")
		}
		return
	}
	u, err := url.Parse(c.S3URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		strings.Trim(u.Path, "/") == "" {
		p.add("s3_url", "must be https://HOST[:PORT]/BUCKET[/PREFIX], without user")
	}
	if c.S3AccessKey == "" || c.S3SecretKey.Empty() {
		p.add("s3_access_key", "must be set where s3_url is, and s3_secret_key too")
	}
	if c.S3Region == "" {
		p.add("s3_region", "must be set where s3_url is")
	}
}

// milvus says what is wrong with the address of Milvus.
func (p *Problems) milvus(c *Config) {
	if c.MilvusAddr == "" {
		if c.MilvusUser != "" || !c.MilvusPassword.Empty() {
			p.add("milvus_addr", "must be set where milvus_user or milvus_password is")
		}
		return
	}
	address := c.MilvusAddr
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	if u, err := url.Parse(address); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" ||
		u.Scheme == "http" && u.Port() == "" {
		p.add("milvus_addr", "must be HOST:PORT or https://HOST[:PORT], without user")
	}
	if (c.MilvusUser == "") != c.MilvusPassword.Empty() {
		p.add("milvus_user", "must be set together with milvus_password")
	}
}

// embeddings says what is missing or wrong.
func (p *Problems) embeddings(e *Embeddings) {
	if e.BaseURL == "" {
		if e.Model != "" || !e.APIKey.Empty() || e.Price != 0 {
			p.add("embeddings.base_url", "must be set where another key of embeddings is")
		}
		return
	}
	if u, err := url.Parse(e.BaseURL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		p.add("embeddings.base_url", "must be https://HOST[:PORT]/PATH, without user, query and fragment")
	}
	if e.Model == "" || len(e.Model) > 200 || strings.ContainsFunc(e.Model, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		p.add("embeddings.model", "must be the name of a model where embeddings.base_url is set")
	}
}

// vault says what is missing or too much.
func (p *Problems) vault(c *Config) {
	token, role := !c.VaultToken.Empty(), c.VaultRoleID != "" || !c.VaultSecretID.Empty()
	if c.VaultAddr == "" {
		if token || role {
			p.add("vault_addr", "must be set where vault_token or vault_role_id is")
		}
		if c.VaultTransitKey != "" {
			p.add("vault_addr", "must be set where vault_transit_key is")
		}
		return
	}
	if u, err := url.Parse(c.VaultAddr); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		p.add("vault_addr", "must be https://HOST:PORT")
	}
	if token == role {
		p.add("vault_token", "must be set, or else vault_role_id and vault_secret_id; not both ways")
	}
	if role && (c.VaultRoleID == "" || c.VaultSecretID.Empty()) {
		p.add("vault_role_id", "must be set together with vault_secret_id")
	}
	if c.VaultMount == "" {
		p.add("vault_mount", "must be the path where KV version 2 is mounted")
	}
	if c.VaultTransitKey != "" && c.VaultTransitMount == "" {
		p.add("vault_transit_mount", "must be the path where the engine transit is mounted")
	}
}

// entries holds every key against its tags.
func (p *Problems) entries(c *Config) {
	for _, e := range Entries() {
		if e.Allowed == "" || e.index == nil {
			continue
		}
		v := reflect.ValueOf(c).Elem().FieldByIndex(e.index)
		if v.Kind() == reflect.String {
			if !slices.Contains(strings.Split(e.Allowed, "|"), v.String()) {
				p.add(e.Path, "must be %s", alternatives(e.Allowed))
			}
		} else if !within(v, e.Allowed) {
			p.add(e.Path, "must be %s, not %s", strings.NewReplacer(", ", " or ", "..", " to ").Replace(e.Allowed), render(v))
		}
	}
}

// alternatives makes "a, b or c" of "a|b|c".
func alternatives(oneof string) string {
	all := strings.Split(oneof, "|")
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " or " + all[last]
}

func (p *Problems) addresses(c *Config) {
	const right = "must be host:port, such as 127.0.0.1:8080, with a port from 0 to 65535"
	host, port, ok := splitAddress(c.Listen)
	if !ok {
		p.add("listen", right)
	}
	opsHost, opsPort, opsOK := splitAddress(c.OpsListen)
	if !opsOK {
		p.add("ops_listen", right)
	}
	everywhere := func(h string) bool {
		ip, err := netip.ParseAddr(h)
		return h == "" || err == nil && ip.IsUnspecified()
	}
	if ok && opsOK && port != 0 && port == opsPort &&
		(strings.EqualFold(host, opsHost) || everywhere(host) || everywhere(opsHost)) {
		p.add("ops_listen", "must be another address than listen, such as 127.0.0.1:%d", (port+1)%65536)
	}
}

// hostName matches a DNS name (RFC 1123).
var hostName = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

func splitAddress(address string) (host string, port int, ok bool) {
	host, digits, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, false
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && (len(host) > 253 || !hostName.MatchString(host)) {
		return "", 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	return host, int(n), err == nil
}

// isLoopback reports whether only this machine reaches the address, host or
// host:port.
func isLoopback(address string) bool {
	host := address
	if h, _, err := net.SplitHostPort(address); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

var providerName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func (p *Problems) providers(all map[string]Provider) {
	kindField, _ := reflect.TypeFor[Provider]().FieldByName("Kind")
	kinds := kindField.Tag.Get("oneof")
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		one, path := all[name], "providers."+shown(name)
		switch {
		case !providerName.MatchString(name):
			p.add(path, `must be named with 1 to 64 of a-z, 0-9, ".", "_", "-", beginning with a letter or digit`)
		case name == "sandbox" || name == "agent" || name == "embeddings":
			// Test keys reach the sandbox and nothing else, and agent/ begins an
			// agent's name: neither may lead to a real provider.
			p.add(path, "must have another name; sandbox, agent and embeddings have a meaning of their own")
		}
		if !slices.Contains(strings.Split(kinds, "|"), one.Kind) {
			p.add(path+".kind", "must be %s", alternatives(kinds))
		}
		if one.BaseURL != "" {
			if wrong := checkURL(one.BaseURL); wrong != "" {
				p.add(path+".base_url", "%s", wrong)
			}
		} else if one.Kind == "azure" || one.Kind == "vllm" || one.Kind == "custom" {
			p.add(path+".base_url", "must be given: kind %s has no address of its own", one.Kind)
		}
	}
}

// checkURL says what is wrong with an address. It never shows it: there could be
// a password in it.
func checkURL(text string) string {
	const right = "must be an absolute http or https URL, such as https://api.example.com/v1, without user, query and fragment"
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "" ||
		u.User != nil || strings.ContainsAny(text, "?#") {
		return right
	}
	if _, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && err != nil || strings.HasSuffix(u.Host, ":") {
		return right
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil && !hostName.MatchString(strings.ReplaceAll(u.Hostname(), "_", "-")) {
		return right // an underscore is no host name, but Compose and Kubernetes resolve it
	}
	return ""
}

func (p *Problems) tls(t TLS) {
	if t.Cert == "" && t.Key == "" {
		return
	}
	cert := p.pem("tls.cert", t.Cert, "tls.key")
	key := p.pem("tls.key", t.Key, "tls.cert")
	if cert == nil || key == nil {
		return
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		p.add("tls.cert", "must be a PEM certificate with its private key in tls.key: %v", err)
	}
}

// pem reads the file of one of the two TLS keys, or returns nil.
func (p *Problems) pem(key, file, other string) []byte {
	if file == "" {
		p.add(key, "must be given together with %s, or neither", other)
		return nil
	}
	text, err := readFile(file, maxFileBytes)
	if err != nil {
		p.add(key, "must be a file that can be read: %v", err)
	}
	return text
}
