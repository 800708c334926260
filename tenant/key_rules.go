package tenant

import (
	"net/netip"
	"slices"
	"time"
)

// MaxAllowedIPs is how many networks the rules of a key may list.
const MaxAllowedIPs = 64

// KeyRules narrow what a key may be used for, beside what its kind does. The zero
// value narrows nothing.
type KeyRules struct {
	// AllowedIPs are the networks that the key may be used from; none is all.
	AllowedIPs []netip.Prefix `json:"allowed_ips,omitempty"`
	// Scopes are what the key may be used for; none is all. Those of an admin key
	// are permissions, and those of a project's key parts of the API: see Scope.May.
	// Most keys have none, and there are many keys: it is a pointer.
	Scopes *[]string `json:"scopes,omitempty"`
}

// ScopeNames returns the names of the scopes, nil for all.
func (r KeyRules) ScopeNames() []string {
	if r.Scopes == nil {
		return nil
	}
	return *r.Scopes
}

// SetScopes sets the scopes; no names are all.
func (r *KeyRules) SetScopes(names []string) {
	if r.Scopes = nil; len(names) > 0 {
		r.Scopes = &names
	}
}

// AllowsIP reports whether the key may be used from addr. An address that is not
// known is in no network.
func (r KeyRules) AllowsIP(addr netip.Addr) bool {
	if len(r.AllowedIPs) == 0 {
		return true
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(r.AllowedIPs, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// Rotate makes k another value. Its id stays, and with it limits, budgets and
// history. Until oldUntil the value before is taken too.
func (m *Minter) Rotate(s Scope, k Key, oldUntil time.Time) (value string, rotated Key) {
	value, fresh := m.mintAs(k.Kind, s.ID().Locator(), k.ID[len(keyName("")):])
	k.Old = &OldValue{k.Hash, oldUntil}
	k.Hash, k.Redacted = fresh.Hash, fresh.Redacted
	return value, k
}

// KeyOf returns the id of the key that value is, if value is a key of the company
// of s and its form is right; whether it is one that was given out is for the
// hash to say: see Minter.Proves.
func KeyOf(s Scope, value string) (id string, ok bool) {
	p, ok := parseKey([]byte(value))
	if !ok || string(p.locator) != s.ID().Locator() {
		return "", false
	}
	return keyName(string(p.id)), true
}

// CompanyOf returns the id of the company that value says it is a key of. It
// proves nothing.
func CompanyOf(value string) (company string, ok bool) {
	p, ok := parseKey([]byte(value))
	if !ok || p.kind == KeyOperator {
		return "", false
	}
	return idPrefix + string(p.locator), true
}

// Proves reports whether value is that of k, or was before it was rotated.
func (m *Minter) Proves(value string, k *Key) bool {
	b := []byte(value)
	return m.proves(b, &k.Hash) || k.Old != nil && m.proves(b, &k.Old.Hash)
}

// proved reports whether key is the value of k at this time.
func (d *Directory) proved(key []byte, k *Key) bool {
	return d.minter.proves(key, &k.Hash) || k.Old != nil && d.now().Before(k.Old.Until) && d.minter.proves(key, &k.Old.Hash)
}

// usedEvery is how often a key is noted as used, at most.
const usedEvery = time.Minute

// maxUsed is how many keys are noted between two calls of Used. Those on top are
// noted when they are used the next time.
const maxUsed = 100_000

// use notes that a key was used. Its cost is two loads, but once a minute.
func (d *Directory) use(s Scope, now time.Time) {
	a := s.a
	if last := a.used.Load(); now.UnixNano()-last < int64(usedEvery) || !a.used.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	d.usedMu.Lock()
	defer d.usedMu.Unlock()
	if len(d.used) < maxUsed {
		d.used = append(d.used, s)
	}
}

// KeyUse says when a key was used, that of Scope.
type KeyUse struct {
	Scope Scope
	At    time.Time
}

// Used returns which keys were used since it was last called, to be stored. A key
// is in it once for each minute at most.
func (d *Directory) Used() []KeyUse {
	d.usedMu.Lock()
	defer d.usedMu.Unlock()
	used := make([]KeyUse, len(d.used))
	for i, s := range d.used {
		used[i] = KeyUse{s, time.Unix(0, s.a.used.Load())}
	}
	d.used = nil
	return used
}
