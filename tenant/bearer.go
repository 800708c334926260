package tenant

import (
	"context"
	"crypto/sha256"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/fault"
)

// LoginStats are sums since the start.
type LoginStats struct {
	Verified  int64 // tokens whose signature was proved
	Refused   int64 // tokens that were not let in, those remembered as refused too
	Exchanged int64 // keys given out for tokens
	Fetched   int64 // sets of keys that were fetched from issuers
	Unfetched int64 // that could not be fetched, or not be read
}

// logins are what is known of tokens.
type logins struct {
	sets      *keySets
	audiences audiences
	shards    [shardCount]loginShard
	verified  atomic.Int64
	refused   atomic.Int64
	exchanged atomic.Int64
}

// loginShard finds a proved token by its hash, of whatever company: the audience
// inside is not read again.
type loginShard struct {
	mu  sync.RWMutex
	all map[[sha256.Size]byte]*login
}

// login is a token, or a key given out for one, that was proved under one version
// of its company's policy.
type login struct {
	kn    *known
	a     *access
	until time.Time
	set   *keySet // whose keys proved it; nil for a key that was given out
	list  *keyList
}

// tokensOf is what a company has of tokens. Its bounds are the company's share.
type tokensOf struct {
	mu       sync.Mutex
	proved   map[[sha256.Size]byte]struct{} // those on the shards
	refused  map[[sha256.Size]byte]refusal
	gone     bool // the company was loaded anew
	verifies chan struct{}
}

type refusal struct {
	err   error
	until time.Time
}

// signatures is how many of one company's are proved at once: a flood of them
// must leave the processor to others.
var signatures = max(1, runtime.GOMAXPROCS(0)/2)

// ofTokens returns what the company has of tokens, which most have none of.
func (kn *known) ofTokens() *tokensOf {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	if kn.tokens == nil {
		kn.tokens = &tokensOf{verifies: make(chan struct{}, signatures)}
	}
	return kn.tokens
}

func (l *logins) shard(sum *[sha256.Size]byte) *loginShard {
	return &l.shards[int(sum[0])%len(l.shards)]
}

func (l *logins) find(sum *[sha256.Size]byte) *login {
	s := l.shard(sum)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.all[*sum]
}

func (l *logins) drop(sum *[sha256.Size]byte) {
	s := l.shard(sum)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, *sum)
}

// keep remembers a login until it ends or its company's policy changes.
func (l *logins) keep(sum *[sha256.Size]byte, g *login, most int) {
	of := g.kn.ofTokens()
	of.mu.Lock()
	defer of.mu.Unlock()
	if of.gone {
		return
	}
	if of.proved == nil {
		of.proved = map[[sha256.Size]byte]struct{}{}
	}
	for len(of.proved) >= most {
		for old := range of.proved {
			delete(of.proved, old)
			l.drop(&old)
			break
		}
	}
	of.proved[*sum] = struct{}{}
	s := l.shard(sum)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[[sha256.Size]byte]*login{}
	}
	s.all[*sum] = g
}

// forget drops the logins of a company that is loaded anew.
func (l *logins) forget(kn *known) {
	if kn == nil {
		return
	}
	of := kn.ofTokens()
	of.mu.Lock()
	defer of.mu.Unlock()
	of.gone = true
	for sum := range of.proved {
		l.drop(&sum)
	}
	of.proved, of.refused = nil, nil
}

func (of *tokensOf) refusal(sum *[sha256.Size]byte, now time.Time) error {
	of.mu.Lock()
	defer of.mu.Unlock()
	r, there := of.refused[*sum]
	if !there || !now.Before(r.until) {
		return nil
	}
	return r.err
}

func (of *tokensOf) refuse(sum *[sha256.Size]byte, err error, until time.Time, most int) {
	of.mu.Lock()
	defer of.mu.Unlock()
	if of.refused == nil {
		of.refused = map[[sha256.Size]byte]refusal{}
	}
	dropOne(of.refused, most)
	of.refused[*sum] = refusal{err, until}
}

// warm returns the scope of a token that was proved before, if that still holds.
// It is one hash and one look into a map.
func (d *Directory) warm(sum *[sha256.Size]byte) (Scope, bool) {
	g := d.logins.find(sum)
	if g == nil {
		return Scope{}, false
	}
	now := d.now()
	var room [32]byte
	kn, _, _ := d.shard(append(room[:0], g.a.company.id.Locator()...)).find(append(room[:0], g.a.company.id.Locator()...))
	if kn != g.kn || !now.Before(g.until) || g.set != nil && !g.set.holds(g.list, now) {
		return Scope{}, false
	}
	return Scope{g.a}, true
}

// authenticateToken returns the Scope that a JWT proves.
func (d *Directory) authenticateToken(ctx context.Context, b []byte) (Scope, error) {
	if d.tooStale() {
		return Scope{}, errStale
	}
	if len(b) > maxToken {
		d.logins.refused.Add(1)
		return Scope{}, errLongToken
	}
	sum := sha256.Sum256(b)
	if s, ok := d.warm(&sum); ok {
		return s, nil
	}
	g, err := d.admit(ctx, b, &sum)
	if err != nil {
		d.logins.refused.Add(1)
		return Scope{}, err
	}
	s := Scope{g.a}
	d.logins.keep(&sum, g, d.o.KeysPerCompany)
	if d.o.LoggedIn != nil {
		d.o.LoggedIn(s)
	}
	return s, nil
}

// admit proves a token and finds what it may act as.
func (d *Directory) admit(ctx context.Context, b []byte, sum *[sha256.Size]byte) (*login, error) {
	t, kn, audience, err := d.claimed(ctx, b)
	if err != nil {
		return nil, err
	}
	now := d.now()
	if err := kn.ofTokens().refusal(sum, now); err != nil {
		return nil, err
	}
	g, _, err := d.prove(ctx, t, kn, audience, "")
	if f, is := errors.AsType[*fault.Error](err); is && f.Kind != fault.Unavailable {
		kn.ofTokens().refuse(sum, err, now.Add(d.o.UnknownFor), d.o.KeysPerCompany)
	}
	return g, err
}

// claimed reads a token and finds the company that its audience names, which
// proves nothing: whose rows may be looked at.
func (d *Directory) claimed(ctx context.Context, b []byte) (t *token, kn *known, audience string, err error) {
	if t, err = parseToken(b); err != nil {
		return nil, nil, "", err
	}
	if err = t.checkTime(d.now()); err != nil {
		return nil, nil, "", err
	}
	audience, locator, err := d.whose(ctx, t.audience)
	if err != nil {
		return nil, nil, "", err
	}
	if kn, err = d.known(ctx, []byte(locator)); err != nil {
		return nil, nil, "", err
	}
	if kn == nil {
		return nil, nil, "", errNotTrusted
	}
	return t, kn, audience, nil
}

// whose returns the one audience of a token that is a company's, and the
// company's locator. A token for two is for nobody.
func (d *Directory) whose(ctx context.Context, all []string) (audience, locator string, err error) {
	for _, a := range all {
		of := strings.TrimPrefix(a, audiencePrefix)
		if of == a {
			if of, err = d.logins.audiences.company(ctx, d, a); err != nil {
				return "", "", err
			}
		}
		switch {
		case !validLocator([]byte(of)):
		case locator != "":
			return "", "", badToken("its audience names more than one company, or one twice.")
		default:
			audience, locator = a, of
		}
	}
	if locator == "" {
		return "", "", errNotTrusted
	}
	return audience, locator, nil
}

// prove checks the signature of a token by the keys of the one provider that its
// issuer and audience choose, and finds the rule, of that account unless it is "",
// that lets it in.
func (d *Directory) prove(ctx context.Context, t *token, kn *known, audience, account string) (*login, *IdentityProvider, error) {
	p := kn.company.provider(t.issuer, audience)
	if p == nil {
		return nil, nil, errNotTrusted
	}
	set := d.logins.sets.of(kn.company.id, p)
	key, list, err := d.logins.sets.key(ctx, set, t.kid, t.alg)
	if err != nil {
		return nil, nil, err
	}
	of := kn.ofTokens()
	select {
	case of.verifies <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, unavailable(ctx.Err())
	}
	err = algorithms[t.alg].Verify(t.signed, t.signature, key.key)
	<-of.verifies
	if err != nil {
		return nil, nil, errNotTrusted
	}
	d.logins.verified.Add(1)
	// The token is proved. Only now may the answer depend on the company.
	if kn.company.Status != Active {
		return nil, nil, errSuspended
	}
	r := p.match(t.claims, account)
	if r == nil {
		return nil, nil, errNoRule
	}
	a, err := d.actAs(kn.company, p, r, t.until())
	if err != nil {
		return nil, nil, err
	}
	a.bearer.user = UserID(Scope{a}, subjectName(t.issuer, t.subject))
	return &login{kn: kn, a: a, until: t.until(), set: set, list: list}, p, nil
}

// actAs returns what a rule lets its bearer reach: the rule stands where a key
// would.
func (d *Directory) actAs(c *Company, p *IdentityProvider, r *FederationRule, until time.Time) (*access, error) {
	project := c.Projects[r.ProjectID]
	if project == nil || !project.ArchivedAt.IsZero() {
		return nil, errArchived
	}
	k := &Key{ID: r.ID, Kind: KeyLive, ProjectID: r.ProjectID, ServiceAccountID: r.ServiceAccountID, Name: r.Name, CreatedAt: r.CreatedAt, ExpiresAt: until}
	return &access{company: c, project: project, key: k, grants: r.grants(k), limits: d.limits(c, project, k), budgets: c.budgetsOf(project, k), minter: d.minter, bearer: &bearer{rule: r}}, nil
}

// LoginStats returns what was done with tokens so far.
func (d *Directory) LoginStats() LoginStats {
	l := &d.logins
	return LoginStats{l.verified.Load(), l.refused.Load(), l.exchanged.Load(), l.sets.fetched.Load(), l.sets.unfetched.Load()}
}
