package redisdb

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// target is where Redis is and who asks. It holds secrets and is not printed.
type target struct {
	kind           string // "", "sentinel", "cluster"
	addrs          []string
	master         string // the name that the sentinels know it by
	db             int
	user, password string

	sentinelUser, sentinelPassword string

	tls *tls.Config
}

const forms = "redis://[user:password@]host[:6379][/db], redis+sentinel://[user:password@]host[:26379],…/master[/db] or redis+cluster://[user:password@]host[:6379],…; rediss for TLS"

// parse reads a URL. No error has any of it: it holds a password.
func parse(text string) (t target, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	base, kind, _ := strings.Cut(scheme, "+")
	if !ok || base != "redis" && base != "rediss" || kind != "" && kind != "sentinel" && kind != "cluster" {
		return t, fmt.Errorf("not a URL of Redis: want %s", forms)
	}
	t.kind = kind
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		if err := t.userinfo(authority[:i]); err != nil {
			return t, err
		}
		authority = authority[i+1:]
	}
	if err := t.hosts(authority); err != nil {
		return t, err
	}
	if err := t.path(path); err != nil {
		return t, err
	}
	return t, t.parameters(query, base == "rediss")
}

func (t *target) userinfo(text string) error {
	user, password, _ := strings.Cut(text, ":")
	var err1, err2 error
	t.user, err1 = url.PathUnescape(user)
	t.password, err2 = url.PathUnescape(password)
	if err1 != nil || err2 != nil {
		return errors.New("the user or the password in the URL of Redis is not percent-encoded")
	}
	return nil
}

func (t *target) hosts(text string) error {
	port := "6379"
	if t.kind == "sentinel" {
		port = "26379"
	}
	for host := range strings.SplitSeq(text, ",") {
		u := url.URL{Host: host}
		name, own := u.Hostname(), u.Port()
		if own == "" {
			own = port
		}
		if n, err := strconv.Atoi(own); name == "" || err != nil || n < 1 || n > 65535 || strings.ContainsAny(name, " /?#%") {
			return errors.New("the URL of Redis names no host, or one that is not host or host:port")
		}
		t.addrs = append(t.addrs, net.JoinHostPort(name, own))
	}
	if t.kind == "" && len(t.addrs) > 1 {
		return fmt.Errorf("the URL of Redis names several hosts but not whether they are sentinels or a Cluster: want %s", forms)
	}
	return nil
}

func (t *target) path(text string) error {
	if t.kind == "sentinel" {
		t.master, text, _ = strings.Cut(text, "/")
		if t.master == "" {
			return errors.New("the URL of Redis does not say which master to ask the sentinels for: redis+sentinel://host,host/MASTER")
		}
	}
	if text == "" {
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || t.kind == "cluster" && n != 0 {
		return errors.New("the URL of Redis has a path that is no number of a database (a Cluster has only one)")
	}
	t.db = n
	return nil
}

func (t *target) parameters(text string, secure bool) error {
	query, err := url.ParseQuery(text)
	if err != nil {
		return errors.New("the parameters in the URL of Redis cannot be read")
	}
	ca := ""
	for name, values := range query {
		switch {
		case name == "sentinel_user" && t.kind == "sentinel":
			t.sentinelUser = values[0]
		case name == "sentinel_password" && t.kind == "sentinel":
			t.sentinelPassword = values[0]
		case name == "ca_file" && secure:
			ca = values[0]
		default:
			return errors.New("the URL of Redis has a parameter that is not known for its kind: sentinel_user and sentinel_password with sentinels, ca_file with rediss")
		}
	}
	if !secure {
		return nil
	}
	t.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if ca == "" {
		return nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return fmt.Errorf("cannot read the authorities of Redis: %w", err)
	}
	t.tls.RootCAs = x509.NewCertPool()
	if !t.tls.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("no certificate in %q", ca)
	}
	return nil
}

// String names the place without its secrets.
func (t target) String() string {
	scheme := "redis"
	if t.tls != nil {
		scheme = "rediss"
	}
	if t.kind != "" {
		scheme += "+" + t.kind
	}
	text := scheme + "://" + strings.Join(t.addrs, ",")
	if t.master != "" {
		text += "/" + t.master
	}
	return text
}

// GoString keeps secrets out of %#v.
func (t target) GoString() string { return t.String() }

// connect opens a connection. What has not been sent when it is closed is never
// sent: the kernel would go on for minutes, and a call that its caller has given
// up would be executed late.
func (t *target) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	if t.tls == nil {
		return conn, nil
	}
	config := t.tls.Clone()
	if config.ServerName, _, err = net.SplitHostPort(addr); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}

const (
	bufferSize = 8 << 10 // of a connection, each way; a larger command is written in parts
	idleTime   = 5 * time.Minute
	never      = -1 // are commands repeated; is there another pool for pipelines
)

// dial returns a client that connects when it is needed and waits for no answer
// longer than the timeout. The second result is
// the same one, nil unless it is for a Cluster.
func (t *target) dial(o Options, timeout time.Duration, pool int) (redis.UniversalClient, *redis.ClusterClient) {
	all := &redis.UniversalOptions{
		Addrs: t.addrs, MasterName: t.master, DB: t.db, Dialer: t.connect,
		Username: t.user, Password: t.password, SentinelUsername: t.sentinelUser, SentinelPassword: t.sentinelPassword,
		DialTimeout: o.Timeout, DialerRetries: 1, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
		ContextTimeoutEnabled: true, MaxRetries: never,
		PoolSize: pool, PipelinePoolSize: never, ConnMaxIdleTime: idleTime, ReadBufferSize: bufferSize, WriteBufferSize: bufferSize,
		Protocol: 2, DisableIdentity: true, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch t.kind {
	case "sentinel":
		return redis.NewFailoverClient(all.Failover()), nil
	case "cluster":
		options := all.Cluster()
		options.DisableRoutingPolicies = true // or the library asks for the table of all commands first
		c := redis.NewClusterClient(options)
		return c, c
	}
	return redis.NewClient(all.Simple()), nil
}
