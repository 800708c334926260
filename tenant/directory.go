package tenant

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/fault"
)

// ErrNotFound is what a Source returns for a company, key or operator key that
// is not there.
var ErrNotFound = errors.New("not found")

// Source is where a Directory finds companies and keys. A lie in a key (another
// company's locator) must find no row: every look-up is within one company.
type Source interface {
	// LoadCompany fills c, made for one ID by the Directory, with the company's
	// policy as it stands in one consistent read. It returns ErrNotFound for a
	// company that never was; an erased one is found with Status Erased.
	LoadCompany(ctx context.Context, id ID, c *Company) error
	// LoadKey returns the key of that company with that id. It returns
	// ErrNotFound for a key that is revoked or of another company.
	LoadKey(ctx context.Context, id ID, keyID string) (*Key, error)
	// LoadOperatorKey returns the operator's key with that id, or ErrNotFound.
	LoadOperatorKey(ctx context.Context, keyID string) (*Key, error)
	// LoadAudiences returns all audiences that the operator approved, and the id
	// of the company each is for. There are few.
	LoadAudiences(ctx context.Context) (map[string]string, error)

	People
}

// Directory knows the companies and is the only maker of Scopes. What it has
// loaded answers from memory; Changed drops a company's part of it.
type Directory struct {
	source   Source
	rec      Recorder
	minter   *Minter
	o        Options
	now      func() time.Time
	shards   [shardCount]shard
	loading  chan struct{} // bounds the look-ups under way
	loads    atomic.Int64
	watching watching
	logins   logins
	hasher   *hasher
	throttle *throttle

	usedMu sync.Mutex
	used   []Scope
}

// Options bound a Directory. Zero values take the defaults.
type Options struct {
	// Companies is how many companies are kept in memory; default 200,000.
	Companies int
	// KeysPerCompany is how many keys of one company are kept, known and
	// refused ones each; default 4,096. So a flood of keys that do not exist
	// costs one company's share and no more.
	KeysPerCompany int
	// UnknownFor is how long a key or company that was not found is refused
	// without a look-up; default 10 s.
	UnknownFor time.Duration
	// Lookups is how many look-ups may be under way at once; default 64.
	Lookups int
	// CompanyLimits hold for every company that has none of its own.
	CompanyLimits Limits
	// AllowPrivate says whether the keys of identity providers may be fetched from
	// private addresses; nil: they may not. It is asked each time.
	AllowPrivate func() bool
	// LoggedIn is called when a token was proved that was not known before.
	LoggedIn func(s Scope)
	// Now is the clock; default time.Now.
	Now func() time.Time
}

const shardCount = 64

// unknownPerShard is how many locators of no company a shard remembers. They
// are apart from the companies: anybody can make up any number of them, and
// that must push no company out.
const unknownPerShard = 1024

type shard struct {
	mu        sync.RWMutex
	companies map[string]*known    // by locator
	unknown   map[string]time.Time // locators of no company, until when
	changes   uint64               // counts Changed, so that a load that began before is not kept
}

// known is a company in memory.
type known struct {
	company *Company
	mu      sync.RWMutex
	keys    map[string]*access   // by key id
	refused map[string]time.Time // key ids that were not found, until when; nil before the first
	tokens  *tokensOf            // nil before the first token
}

// NewDirectory returns a Directory over source. Acts of operators go to rec.
func NewDirectory(source Source, rec Recorder, minter *Minter, o Options) *Directory {
	if o.Companies <= 0 {
		o.Companies = 200_000
	}
	if o.KeysPerCompany <= 0 {
		o.KeysPerCompany = 4096
	}
	if o.UnknownFor <= 0 {
		o.UnknownFor = 10 * time.Second
	}
	if o.Lookups <= 0 {
		o.Lookups = 64
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Directory{source: source, rec: rec, minter: minter, o: o, now: o.Now, loading: make(chan struct{}, o.Lookups), hasher: newHasher(), throttle: newThrottle()}
	for i := range d.shards {
		d.shards[i].companies, d.shards[i].unknown = map[string]*known{}, map[string]time.Time{}
	}
	d.logins.sets = newKeySets(d.now, o.AllowPrivate)
	return d
}

// Minter returns what makes keys for this directory.
func (d *Directory) Minter() *Minter { return d.minter }

// Loads counts the look-ups in the source, which a warm Directory makes none of.
func (d *Directory) Loads() int64 { return d.loads.Load() }

// Authenticate returns the Scope that a key proves, or a token of a company's
// identity provider, or a key that was given out for one. The errors are
// Unauthenticated or Forbidden faults; any other error means that the source
// could not be asked. It does no I/O for a key it has seen since the last
// change to the company.
func (d *Directory) Authenticate(ctx context.Context, key []byte) (Scope, error) {
	if len(key) == 0 {
		return Scope{}, errNoKey
	}
	switch {
	case isToken(key):
		return d.authenticateToken(ctx, key)
	case isExchanged(key):
		return d.authenticateExchanged(ctx, key)
	}
	p, ok := parseKey(key)
	if !ok {
		return Scope{}, errTypo
	}
	switch p.kind {
	case KeyOperator:
		return Scope{}, errWrongPlace
	case KeySession, KeyInvite:
		return Scope{}, errNoKeyHere
	}
	return d.authenticate(ctx, key, p)
}

// authenticate is what Authenticate and AuthenticateSession have in common.
func (d *Directory) authenticate(ctx context.Context, key []byte, p parsedKey) (Scope, error) {
	if d.tooStale() {
		return Scope{}, errStale
	}
	kn, err := d.known(ctx, p.locator)
	if err != nil {
		return Scope{}, err
	}
	if kn == nil {
		return Scope{}, errBadKey
	}
	a, err := d.access(ctx, kn, p)
	if err != nil {
		return Scope{}, err
	}
	if a == nil || a.key.Kind != p.kind || !d.proved(key, a.key) {
		return Scope{}, errBadKey
	}
	// The key is proved. Only now may the answer depend on the company.
	if a.company.Status != Active {
		return Scope{}, errSuspended
	}
	if d.expired(a.key) {
		return Scope{}, errExpired
	}
	switch {
	case a.session != nil:
		if idle, err := d.idle(ctx, a); err != nil || idle {
			return Scope{}, cmp.Or(err, error(errExpired))
		}
	case a.key.Kind != KeyAdmin && (a.project == nil || !a.project.ArchivedAt.IsZero()):
		return Scope{}, errArchived
	}
	s := Scope{a}
	if a.session == nil { // a session keeps its own time
		d.use(s, d.now())
	}
	return s, nil
}

// UpToDate reports whether s is of the policy that the Directory holds now of its
// company. It is not after a change. It does no I/O.
func (d *Directory) UpToDate(s Scope) bool {
	var room [32]byte
	locator := append(room[:0], s.ID().Locator()...)
	kn, _, _ := d.shard(locator).find(locator)
	return kn != nil && kn.company == s.access().company
}

// AuthenticateOperator returns the Operator that the key proves. The errors
// are those of Authenticate. It asks the source each time: operators are few.
func (d *Directory) AuthenticateOperator(ctx context.Context, key []byte) (Operator, error) {
	if len(key) == 0 {
		return Operator{}, errNoKey
	}
	p, ok := parseKey(key)
	if !ok {
		return Operator{}, errTypo
	}
	if p.kind != KeyOperator {
		return Operator{}, fault.New(fault.Forbidden, "This address takes an operator key.").WithCode("operator_key_required")
	}
	release, err := d.lookup(ctx)
	if err != nil {
		return Operator{}, err
	}
	defer release()
	d.loads.Add(1)
	k, err := d.source.LoadOperatorKey(ctx, keyName(string(p.id)))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Operator{}, unavailable(err)
	}
	if k == nil || k.Kind != KeyOperator || !d.minter.proves(key, &k.Hash) {
		return Operator{}, errBadKey
	}
	if d.expired(k) {
		return Operator{}, errExpired
	}
	return Operator{&operator{k.ID, d.rec}}, nil
}

// Gateway returns the Operator that stands for the gateway itself: first start
// and background work. Its acts are recorded like any other's.
func (d *Directory) Gateway() Operator { return Operator{&operator{"gateway", d.rec}} }

// Scope opens a company for work that no key of it asked for. The Act says why
// and was recorded. A company of any status is opened, so that it can be erased.
func (d *Directory) Scope(ctx context.Context, a Act, company string) (Scope, error) {
	if act := a.act(); act.company != company {
		panic("BUG: the act was recorded for another company")
	}
	locator := ID{company}.Locator()
	if company != idPrefix+locator || !validLocator([]byte(locator)) {
		return Scope{}, errNoCompany
	}
	kn, err := d.known(ctx, []byte(locator))
	if err != nil {
		return Scope{}, err
	}
	if kn == nil {
		return Scope{}, errNoCompany
	}
	return d.background(kn.company), nil
}

var errNoCompany = fault.New(fault.NotFound, "No such company.").WithCode("company_not_found")

// NewCompany returns the Scope of a company that does not exist yet, for the
// one transaction that makes it.
func (d *Directory) NewCompany(a Act, name string) Scope {
	a.act()
	c := &Company{id: ID{idPrefix + digits(locatorLen, base32Digits)}, Name: name, Status: Active, CreatedAt: d.now()}
	return Scope{&access{company: c, minter: d.minter}}
}

// Changed forgets what is in memory of the company with that id, or of all for
// Everybody. The next
// request sees the policy as it now stands in the source.
func (d *Directory) Changed(company string) {
	if company == Everybody {
		for i := range d.shards {
			s := &d.shards[i]
			s.mu.Lock()
			clear(s.companies)
			s.changes++
			s.mu.Unlock()
		}
		return
	}
	locator := ID{company}.Locator()
	s := d.shard([]byte(locator))
	s.mu.Lock()
	old := s.companies[locator]
	delete(s.companies, locator)
	delete(s.unknown, locator)
	s.changes++
	s.mu.Unlock()
	d.logins.forget(old)
}

func (d *Directory) shard(locator []byte) *shard {
	h := uint32(2166136261) // FNV-1a
	for _, c := range locator {
		h = (h ^ uint32(c)) * 16777619
	}
	return &d.shards[h%shardCount]
}

// find returns the company with that locator, or until when there is none.
func (s *shard) find(locator []byte) (kn *known, unknown time.Time, changes uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if kn = s.companies[string(locator)]; kn == nil {
		unknown = s.unknown[string(locator)]
	}
	return kn, unknown, s.changes
}

// known returns the company with that locator, loading it where it must; nil if
// there is none.
func (d *Directory) known(ctx context.Context, locator []byte) (*known, error) {
	s := d.shard(locator)
	kn, unknown, _ := s.find(locator)
	if kn != nil || d.now().Before(unknown) {
		return kn, nil
	}

	release, err := d.lookup(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	// Somebody else may have loaded it while this one waited.
	kn, unknown, changes := s.find(locator)
	if kn != nil || d.now().Before(unknown) {
		return kn, nil
	}
	d.loads.Add(1)
	c := &Company{id: ID{idPrefix + string(locator)}}
	err = d.source.LoadCompany(ctx, c.id, c)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, unavailable(err)
	}
	if err == nil && c.Status != Erased {
		kn = &known{company: c, keys: map[string]*access{}}
	} else {
		d.logins.sets.forget(c.id.name)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes != changes {
		return kn, nil // true when it was read, but no longer to be kept
	}
	if old := s.companies[string(locator)]; old != nil {
		return old, nil // somebody else was first
	}
	if kn == nil {
		dropOne(s.unknown, unknownPerShard)
		s.unknown[string(locator)] = d.now().Add(d.o.UnknownFor)
		return nil, nil
	}
	d.logins.forget(dropOne(s.companies, d.o.Companies/shardCount))
	delete(s.unknown, string(locator))
	s.companies[string(locator)] = kn
	return kn, nil
}

// find returns what the key with that id reaches, or until when it is refused.
func (kn *known) find(keyID []byte) (a *access, refused time.Time) {
	kn.mu.RLock()
	defer kn.mu.RUnlock()
	if a = kn.keys[string(keyID)]; a == nil {
		refused = kn.refused[string(keyID)]
	}
	return a, refused
}

// access returns what the key reaches, nil if there is no such key.
func (d *Directory) access(ctx context.Context, kn *known, p parsedKey) (*access, error) {
	var room [keyIDLen + 1]byte
	name := p.id // what a session is remembered by is no key's
	if p.kind == KeySession {
		name = append(append(room[:0], '+'), p.id...)
	}
	a, refused := kn.find(name)
	if a != nil || d.now().Before(refused) {
		return a, nil
	}

	release, err := d.lookup(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if a, refused = kn.find(name); a != nil || d.now().Before(refused) {
		return a, nil
	}
	d.loads.Add(1)
	a, err = d.load(ctx, kn.company, p)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, unavailable(err)
	}
	// Changed replaces kn as a whole, so what is added to an old one is not seen again.
	kn.mu.Lock()
	defer kn.mu.Unlock()
	if err != nil {
		if kn.refused == nil {
			kn.refused = map[string]time.Time{}
		}
		dropOne(kn.refused, d.o.KeysPerCompany)
		kn.refused[string(name)] = d.now().Add(d.o.UnknownFor)
		return nil, nil
	}
	dropOne(kn.keys, d.o.KeysPerCompany)
	kn.keys[string(name)] = a
	return a, nil
}

// load asks the source for a key or session, and for the user it is of.
func (d *Directory) load(ctx context.Context, c *Company, p parsedKey) (a *access, err error) {
	a = &access{company: c, minter: d.minter}
	id := p.kind.name(string(p.id))
	if p.kind == KeySession {
		there, err := d.source.LoadSession(ctx, c.id, id)
		if err != nil {
			return nil, err
		}
		a.key, a.session = &there.Key, &session{}
		a.key.UserID = there.UserID
		a.session.seen.Store(there.SeenAt.UnixMicro())
	} else if a.key, err = d.source.LoadKey(ctx, c.id, id); err != nil {
		return nil, err
	}
	a.grants = keyGrants(a.key)
	if a.key.UserID != "" {
		if a.user, err = d.source.LoadUser(ctx, c.id, a.key.UserID); err != nil {
			return nil, err
		}
		a.grants = a.key.Narrow(a.user.Grants)
	}
	a.project = c.Projects[a.key.ProjectID]
	a.limits, a.budgets = d.limits(c, a.project, a.key), c.budgetsOf(a.project, a.key)
	return a, nil
}

// expired reports whether the key was valid until now.
func (d *Directory) expired(k *Key) bool {
	return !k.ExpiresAt.IsZero() && !d.now().Before(k.ExpiresAt)
}

func unavailable(cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "The gateway cannot check API keys at the moment.")
}

// limits resolves, once per key and policy, what every request must pass.
func (d *Directory) limits(c *Company, p *Project, k *Key) []Limited {
	company := c.Limits
	if company.Zero() {
		company = d.o.CompanyLimits
	}
	all := []Limited{{"company", c.id.name, company}}
	if p != nil {
		all = append(all, Limited{"project", p.ID, p.Limits})
	}
	if k != nil {
		all = append(all, Limited{"key", k.ID, k.Limits})
	}
	out := all[:0]
	for _, l := range all {
		if !l.Limits.Zero() {
			out = append(out, l)
		}
	}
	return out
}
