package keystore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/time/rate"
)

// session sees to it that the client has a token: it gets one, has it renewed,
// looks from time to time whether Vault still takes it, and gets the next.
type session struct {
	client *api.Client
	// renewer is the client of the watchers. It is limited because towards the
	// end of a token a LifetimeWatcher (v1.23.0) repeats a renewal that failed
	// without a pause: the field Stop of its backoff is 0, not backoff.Stop.
	renewer *api.Client
	login   func(ctx context.Context) (*api.Secret, error) // nil if the token was given; a function does not print its secret
	mount   string
	prefix  string
	check   time.Duration

	cancel context.CancelFunc
	ended  chan struct{}
	wanted chan struct{} // somebody wants the token to be looked at
	logins atomic.Int64

	// Of the loop alone.
	watcher *api.LifetimeWatcher
	watched string // the token that watcher renews

	mu       sync.Mutex
	begun    int64 // looks that began, and of them those that are done
	done     int64
	err      error // what the last one found
	found    bool  // KV version 2 was seen at mount, and may be read
	moved    chan struct{}
	closings sync.Once
}

// errStarting is how a session is before it first asked Vault.
var errStarting = errors.New("vault was not asked yet")

// Between two tries to get well again lie at least and at most so long.
const (
	minPause = 100 * time.Millisecond
	maxPause = 2 * time.Second
)

func openSession(o VaultOptions, client *api.Client, transport http.RoundTripper) (*session, error) {
	s := &session{
		client: client, mount: o.Mount, prefix: o.Prefix, check: o.Check, err: errStarting,
		ended: make(chan struct{}), wanted: make(chan struct{}, 1), moved: make(chan struct{}),
	}
	var err error
	if s.renewer, err = newClient(o, transport, rate.NewLimiter(1, 2)); err != nil {
		return nil, err
	}
	if o.RoleID != "" {
		door, err := newClient(o, transport, nil) // never has a token
		if err != nil {
			return nil, err
		}
		s.login = func(ctx context.Context) (*api.Secret, error) {
			return door.Logical().WriteWithContext(ctx, "auth/approle/login", map[string]any{"role_id": o.RoleID, "secret_id": o.SecretID.Reveal()})
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go s.run(ctx)
	return s, nil
}

func (s *session) close() {
	s.closings.Do(func() {
		s.cancel()
		<-s.ended
	})
}

func (s *session) run(ctx context.Context) {
	defer close(s.ended)
	defer s.watch(nil)
	pause, expiring := minPause, false
	for ctx.Err() == nil {
		err := s.attempt(ctx, expiring)
		wanted, wait := s.wanted, s.check
		if err == nil {
			pause, expiring = minPause, false
		} else {
			wanted, wait = nil, pause // whoever wants it must wait, too
			pause = min(2*pause, maxPause)
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-ctx.Done():
		case <-timer.C:
			if s.watcher == nil {
				s.watched = "" // its renewal may have ended because Vault was away
			}
		case <-wanted:
		case <-s.watchEnds():
			expiring = s.login != nil
			s.watch(nil)
		}
		timer.Stop()
	}
}

// attempt looks at the token, or gets one, and writes down what came of it.
func (s *session) attempt(ctx context.Context, expiring bool) error {
	ctx, cancel := context.WithTimeout(ctx, manageTimeout/2)
	defer cancel()
	s.mu.Lock()
	s.begun++
	s.mu.Unlock()
	err := s.ensure(ctx, expiring)
	found := s.mounted()
	if err == nil && !found {
		err = s.seeMount(ctx)
		found = err == nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.err, s.found = s.begun, err, found
	close(s.moved)
	s.moved = make(chan struct{})
	return err
}

func (s *session) ensure(ctx context.Context, expiring bool) error {
	if token := s.client.Token(); token != "" && !expiring {
		self, err := s.client.Auth().Token().LookupSelfWithContext(ctx)
		switch err = plain(err); {
		case err == nil:
			s.watchToken(token, self)
			return nil
		case statusOf(err) != http.StatusForbidden:
			return err
		case s.login == nil:
			return fmt.Errorf("the token for vault has ended: %w", err)
		}
	}
	got, err := s.login(ctx)
	if err != nil {
		return fmt.Errorf("cannot log in by AppRole: %w", plain(err))
	}
	if got == nil || got.Auth == nil || got.Auth.ClientToken == "" {
		return fmt.Errorf("cannot log in by AppRole: %w", errNotUnderstood)
	}
	s.logins.Add(1)
	s.client.SetToken(got.Auth.ClientToken)
	s.watch(got)
	return nil
}

// watchToken has a token renewed that nobody renews yet, self being what
// Vault says of it. One without an end needs no renewal.
func (s *session) watchToken(token string, self *api.Secret) {
	ttl, err := self.TokenTTL()
	renewable, _ := self.TokenIsRenewable()
	if s.watched == token || err != nil || ttl <= 0 {
		return
	}
	s.watch(&api.Secret{Auth: &api.SecretAuth{ClientToken: token, Renewable: renewable, LeaseDuration: int(ttl / time.Second)}})
}

// watch has the token of got renewed until that is no longer possible, and no
// other token. nil ends the renewal.
func (s *session) watch(got *api.Secret) {
	if s.watcher != nil {
		s.watcher.Stop()
		s.watcher = nil
	}
	if got == nil || got.Auth.LeaseDuration <= 0 {
		return
	}
	w, err := s.renewer.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: got})
	if err != nil {
		panic("BUG: " + err.Error())
	}
	s.watcher, s.watched = w, got.Auth.ClientToken
	go w.Start()
}

func (s *session) watchEnds() <-chan error {
	if s.watcher == nil {
		return nil
	}
	return s.watcher.DoneCh()
}

// seeMount asks whether KV version 2 is where it should be, as Vault's own
// command line does: whoever may reach something below needs no rule for it.
func (s *session) seeMount(ctx context.Context) error {
	got, err := s.client.Logical().ReadWithContext(ctx, "sys/internal/ui/mounts/"+s.mount)
	if err != nil {
		return fmt.Errorf("cannot see what is mounted at %q: %w", s.mount, plain(err))
	}
	if got != nil {
		options, _ := got.Data["options"].(map[string]any)
		if got.Data["path"] == s.mount+"/" && options["version"] == "2" {
			return s.tryRead(ctx)
		}
	}
	return fmt.Errorf("at %q vault has no KV version 2", s.mount)
}

// tryRead reads where a credential of a company would be that cannot be one.
func (s *session) tryRead(ctx context.Context) error {
	_, err := s.client.Logical().ReadWithContext(ctx, s.mount+"/data/"+s.prefix+"/companies/none/providers/none")
	if err != nil {
		return fmt.Errorf("cannot read credentials below %q at %q: %w", s.prefix, s.mount, plain(err))
	}
	return nil
}

func (s *session) health() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *session) mounted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.found
}

// look has the token looked at soon.
func (s *session) look() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// token returns the token in use. Before there is one it waits for the first
// try to get one.
func (s *session) token(ctx context.Context) (string, error) {
	if err := s.wait(ctx, func() bool { return s.done > 0 }); err != nil {
		return "", err
	}
	if token := s.client.Token(); token != "" {
		return token, nil
	}
	return "", s.health()
}

// replaced reports whether there is another token than used, which was refused.
// It has the token looked at first, unless that is known to be in vain.
func (s *session) replaced(ctx context.Context, used string) bool {
	if s.client.Token() != used {
		return true
	}
	s.mu.Lock()
	next := s.begun + 1
	s.mu.Unlock()
	s.look()
	err := s.wait(ctx, func() bool { return s.err != nil || s.done >= next })
	return err == nil && s.client.Token() != used
}

// wait returns when what holds, which it looks up under mu, or when ctx ends.
func (s *session) wait(ctx context.Context, what func() bool) error {
	for {
		s.mu.Lock()
		ok, moved := what(), s.moved
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("vault did not answer in time: %w", ctx.Err())
		case <-s.ended:
			return errors.New("vault is closed")
		}
	}
}
