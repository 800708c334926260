package tenant

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/egress"
)

// When keys are fetched. A gateway fetches for itself, in the background but for
// the first time and for a key it does not know.
const (
	fetchEvery   = 10 * time.Minute // while tokens of the provider come
	fetchAgain   = 30 * time.Second // at the earliest, whatever is asked for
	fetchTimeout = 5 * time.Second  // for discovery and keys together
	fetchWait    = 8 * time.Second  // that a request waits, its turn included
	fetchStale   = 4 * time.Hour    // that keys are used for while their issuer is away
	fetchers     = 8                // at once
	perCompany   = 2                // of them for one company
	maxWaiting   = 64               // requests of one provider
)

// keySource says where the keys of a provider are.
type keySource struct{ issuer, discovery, uploaded string }

// keyList is one version of a provider's keys. It does not change but for when it
// was last seen to be right.
type keyList struct {
	keys []publicKey
	text string
	seen atomic.Int64 // unix ns; of uploaded keys no matter
}

// keySet holds the keys of one provider.
type keySet struct {
	company, provider string
	source            keySource
	list              atomic.Pointer[keyList] // nil before the first

	mu      sync.Mutex
	tried   time.Time     // when fetching last began
	busy    chan struct{} // closed when the fetching under way has ended; nil: none is
	waiting int
}

// keySets has the keys of all providers that tokens came from. Those of a
// company are found by its id and the provider's, and fetched in turns: a company
// whose issuers are slow holds up no other.
type keySets struct {
	fetch func(ctx context.Context, url string) ([]byte, error)
	now   func() time.Time

	mu      sync.Mutex
	sets    map[[2]string]*keySet
	queues  map[string][]*keySet // by company, what waits
	turns   []string             // the companies with something in queues and a free place
	active  map[string]int
	running int

	fetched, unfetched atomic.Int64
}

// maxSets bounds how many providers' keys are kept.
const maxSets = 20_000

func newKeySets(now func() time.Time, allowPrivate func() bool) *keySets {
	k := &keySets{now: now, sets: map[[2]string]*keySet{}, queues: map[string][]*keySet{}, active: map[string]int{}}
	public, lab := newFetcher(false), newFetcher(true)
	k.fetch = func(ctx context.Context, url string) ([]byte, error) {
		if allowPrivate != nil && allowPrivate() {
			return lab.get(ctx, url, true)
		}
		return public.get(ctx, url, false)
	}
	return k
}

// of returns the set of a provider, a new one if its source has changed.
func (k *keySets) of(company ID, p *IdentityProvider) *keySet {
	source := keySource{p.Issuer, p.DiscoveryURL, p.JWKS}
	name := [2]string{company.name, p.ID}
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.sets[name]
	if s == nil || s.source != source {
		s = &keySet{company: company.name, provider: p.ID, source: source}
		if source.uploaded != "" {
			if keys, err := parseJWKS([]byte(source.uploaded), false); err == nil {
				s.list.Store(&keyList{keys: keys})
			}
		}
		dropOne(k.sets, maxSets)
		k.sets[name] = s
	}
	return s
}

// forget drops what is kept of a company.
func (k *keySets) forget(company string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.sets {
		if name[0] == company {
			delete(k.sets, name)
		}
	}
}

// holds reports whether what list has proved is still so.
func (s *keySet) holds(list *keyList, now time.Time) bool {
	return s.list.Load() == list && !s.stale(list, now)
}

func (s *keySet) stale(list *keyList, now time.Time) bool {
	return s.source.uploaded == "" && now.UnixNano()-list.seen.Load() > int64(fetchStale)
}

func (l *keyList) find(kid, alg string) *publicKey {
	for i := range l.keys {
		if k := &l.keys[i]; k.kid == kid && k.proves(alg) {
			return k
		}
	}
	return nil
}

// key returns the key that a token names and the list it is on. It waits where
// the keys were never fetched or the key is not known, and no more often than
// fetchAgain is anybody asked for that.
func (k *keySets) key(ctx context.Context, s *keySet, kid, alg string) (*publicKey, *keyList, error) {
	for range 2 {
		now := k.now()
		list := s.list.Load()
		usable := list != nil && !s.stale(list, now)
		if usable {
			if found := list.find(kid, alg); found != nil {
				if s.source.uploaded == "" && now.UnixNano()-list.seen.Load() > int64(fetchEvery) {
					s.begin(k) // and go on with what there is
				}
				return found, list, nil
			}
		}
		if s.source.uploaded != "" {
			break
		}
		done := s.begin(k)
		if done == nil { // it was only just done
			if usable {
				break
			}
			return nil, nil, errNoKeys
		}
		if err := s.wait(ctx, done); err != nil {
			return nil, nil, err
		}
	}
	if list := s.list.Load(); list == nil || s.stale(list, k.now()) {
		if s.source.uploaded != "" {
			return nil, nil, errNotTrusted
		}
		return nil, nil, errNoKeys
	}
	return nil, nil, errNotTrusted
}

// begin has the keys fetched, unless that is under way, and returns what is
// closed when it has ended; nil: it is too early to do it again.
func (s *keySet) begin(k *keySets) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy != nil {
		return s.busy
	}
	if now := k.now(); !s.tried.IsZero() && now.Sub(s.tried) < fetchAgain {
		return nil
	}
	s.tried = k.now()
	s.busy = make(chan struct{})
	k.queue(s)
	return s.busy
}

func (s *keySet) wait(ctx context.Context, done <-chan struct{}) error {
	s.mu.Lock()
	full := s.waiting >= maxWaiting
	if !full {
		s.waiting++
	}
	s.mu.Unlock()
	if full {
		return errNoKeys
	}
	defer func() { s.mu.Lock(); s.waiting--; s.mu.Unlock() }()
	late := time.NewTimer(fetchWait)
	defer late.Stop()
	select {
	case <-done:
		return nil
	case <-late.C:
		return errNoKeys
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
}

// queue puts the set behind those of its company, and the company behind others.
func (k *keySets) queue(s *keySet) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queues[s.company] = append(k.queues[s.company], s)
	if len(k.queues[s.company]) == 1 && k.active[s.company] < perCompany {
		k.turns = append(k.turns, s.company)
	}
	if k.running < fetchers {
		k.running++
		go k.work()
	}
}

// work fetches until nothing waits.
func (k *keySets) work() {
	for {
		s := k.next()
		if s == nil {
			return
		}
		s.refresh(k)
		k.mu.Lock()
		if k.active[s.company]--; k.active[s.company] == 0 {
			delete(k.active, s.company)
		}
		k.giveTurn(s.company)
		k.mu.Unlock()
	}
}

// next takes the turn of the company that has waited for longest; nil ends the
// worker.
func (k *keySets) next() *keySet {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.turns) == 0 {
		k.running--
		return nil
	}
	company := k.turns[0]
	k.turns = k.turns[1:]
	s := k.queues[company][0]
	if k.queues[company] = k.queues[company][1:]; len(k.queues[company]) == 0 {
		delete(k.queues, company)
	}
	k.active[company]++
	k.giveTurn(company)
	return s
}

// giveTurn puts a company that has something to fetch, and a place for it, at the
// end of the line, once.
func (k *keySets) giveTurn(company string) {
	if len(k.queues[company]) == 0 || k.active[company] >= perCompany {
		return
	}
	for _, c := range k.turns {
		if c == company {
			return
		}
	}
	k.turns = append(k.turns, company)
}

// refresh fetches the keys. What fails leaves those there were.
func (s *keySet) refresh(k *keySets) {
	defer func() {
		s.mu.Lock()
		close(s.busy)
		s.busy = nil
		s.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	text, keys, err := k.get(ctx, s.source)
	if err != nil {
		k.unfetched.Add(1)
		return
	}
	k.fetched.Add(1)
	now := k.now().UnixNano()
	if old := s.list.Load(); old != nil && old.text == text {
		old.seen.Store(now)
		return
	}
	list := &keyList{keys: keys, text: text}
	list.seen.Store(now)
	s.list.Store(list)
}

const wellKnown = "/.well-known/openid-configuration"

// DiscoveryURL returns where OpenID Connect Discovery has the description of an
// issuer.
func DiscoveryURL(issuer string) string { return strings.TrimSuffix(issuer, "/") + wellKnown }

// get finds the keys of a source.
func (k *keySets) get(ctx context.Context, s keySource) (text string, keys []publicKey, err error) {
	at := s.discovery
	if at == "" {
		at = DiscoveryURL(s.issuer)
	}
	b, err := k.fetch(ctx, at)
	if err != nil {
		return "", nil, err
	}
	address, err := jwksURI(b, s.issuer)
	if err != nil {
		return "", nil, err
	}
	if b, err = k.fetch(ctx, address); err != nil {
		return "", nil, err
	}
	if keys, err = parseJWKS(b, false); err != nil {
		return "", nil, err
	}
	return string(b), keys, nil
}

// jwksURI reads what discovery finds. It must be about the issuer itself, or an
// issuer could be made to speak for another.
func jwksURI(b []byte, issuer string) (string, error) {
	found, err := readObject(b, maxSetValue)
	if err != nil {
		return "", fmt.Errorf("the description of the issuer %w", err)
	}
	if about, _ := found["issuer"].(string); about != issuer {
		return "", fmt.Errorf("the description is of another issuer")
	}
	address, _ := found["jwks_uri"].(string)
	if address == "" {
		return "", fmt.Errorf("the description has no jwks_uri")
	}
	return address, nil
}

// fetcher reads small documents from addresses that companies chose.
type fetcher struct{ transport *http.Transport }

func newFetcher(allowPrivate bool) *fetcher {
	t := egress.NewTransport(egress.Options{Connect: fetchTimeout, AllowPrivate: allowPrivate})
	t.DisableKeepAlives = true // minutes lie between two
	return &fetcher{t}
}

func (f *fetcher) get(ctx context.Context, address string, allowPrivate bool) ([]byte, error) {
	u, err := egress.CheckURL(address, allowPrivate)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(address, "/") { // CheckURL has taken it off
		u.Path += "/"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "Bulkhead-Identity/1")
	answer, err := f.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the issuer answered with status %d", answer.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxJWKS+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxJWKS {
		return nil, fmt.Errorf("the issuer's document is longer than %d bytes", maxJWKS)
	}
	return b, nil
}
