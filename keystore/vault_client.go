package keystore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/time/rate"
)

const (
	// maxVaultConns bounds what is asked of Vault at the same time, by all.
	maxVaultConns = 64
	// maxVaultAnswer bounds an answer, in bytes; a secret here has under 10 KB.
	maxVaultAnswer = 1 << 20
)

// newTransport returns the way to Vault. It has no proxy.
func newTransport(caFile string) (http.RoundTripper, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("vault: cannot read the CA file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("vault: no certificate in the CA file %q", caFile)
		}
	}
	return bounded{&http.Transport{
		DialContext:         (&net.Dialer{Timeout: time.Second}).DialContext,
		TLSHandshakeTimeout: 2 * time.Second,
		TLSClientConfig:     conf,
		ForceAttemptHTTP2:   true,
		MaxConnsPerHost:     maxVaultConns,
		MaxIdleConnsPerHost: maxVaultConns / 4,
		IdleConnTimeout:     90 * time.Second,
	}}, nil
}

// bounded cuts answers that are too long, which then cannot be understood.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.Transport.RoundTrip(r)
	if err == nil {
		answer.Body = http.MaxBytesReader(nil, answer.Body, maxVaultAnswer)
	}
	return answer, err
}

// newClient returns a client without a token. A request is sent once more after
// an error of the network or of the server, but by all together not more often
// than the rate says: nobody gets well under a rain of repetitions.
// limit, if there is one, is for all requests of the client.
func newClient(o VaultOptions, transport http.RoundTripper, limit *rate.Limiter) (*api.Client, error) {
	u, err := url.Parse(o.Addr)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		return nil, errors.New("vault: the address must be https://host:port")
	}
	again := rate.NewLimiter(5, 10)
	client, err := api.NewClient(&api.Config{
		Address: o.Addr,
		HttpClient: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		DisableRedirects: true, // the token is for this address
		Timeout:          manageTimeout,
		Limiter:          limit,
		MaxRetries:       1,
		MinRetryWait:     50 * time.Millisecond,
		MaxRetryWait:     200 * time.Millisecond,
		CheckRetry: func(ctx context.Context, answer *http.Response, err error) (bool, error) {
			failed := err != nil || answer.StatusCode >= http.StatusInternalServerError
			return failed && ctx.Err() == nil && again.Allow(), nil
		},
	})
	if err != nil {
		return nil, errors.New("vault: a VAULT_ variable in the environment is malformed") // all else was checked
	}
	client.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	client.ClearToken()
	if o.Namespace != "" {
		client.SetNamespace(o.Namespace)
	}
	return client, nil
}

// A vaultStatus is an answer of Vault that says no.
type vaultStatus int

func (s vaultStatus) Error() string {
	why := map[vaultStatus]string{
		http.StatusBadRequest:         "it does not accept the request or the login",
		http.StatusForbidden:          "the token is not good, or its policy does not allow this",
		http.StatusNotFound:           "there is nothing of that kind",
		http.StatusTooManyRequests:    "a quota is used up",
		http.StatusServiceUnavailable: "it is sealed or not ready",
	}[s]
	if why == "" {
		why = http.StatusText(int(s))
	}
	return fmt.Sprintf("vault answered %d: %s", int(s), why)
}

// statusOf returns the status with which Vault refused, 0 if it did not answer.
func statusOf(err error) int {
	if s, ok := errors.AsType[vaultStatus](err); ok {
		return int(s)
	}
	return 0
}

// plain returns what may be logged of an error of the client. The text of the
// server stays out, since it may repeat what it was sent.
func plain(err error) error {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[*api.ResponseError](err); ok {
		return vaultStatus(r.StatusCode)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	network := (net.Error)(nil)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("vault did not answer in time: %w", context.DeadlineExceeded)
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &network):
		return fmt.Errorf("cannot reach vault: %w", err)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("cannot trust vault: %w", err)
	}
	return errNotUnderstood
}

// errNotUnderstood is what a broken connection or a broken answer comes to.
var errNotUnderstood = errors.New("vault's answer is cut off or cannot be understood")
