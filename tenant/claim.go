package tenant

import "strings"

// Claim is whom a refused key says it belongs to. It is for writing down that
// it was refused: nothing takes a Claim to open anything.
type Claim struct {
	Company   ID
	KeyID     string
	ProjectID string // of a proved key; "" for others and for admin keys
	UserID    string // of a user whose password was not the one given; "" for keys
	Proved    bool   // it is that key, refused for something else: its kind, its end, its company
}

// Claim reads a key that was refused. It looks at what is in memory and nowhere
// else, so a flood of made-up keys costs no look-ups; a refusal by Authenticate
// has just loaded the company if there is one. ok is false for what is no key of
// a company that is known here.
func (d *Directory) Claim(key []byte) (c Claim, ok bool) {
	switch {
	case isToken(key):
		return d.claimOfToken(key)
	case isExchanged(key):
		return d.claimOfExchanged(key)
	}
	p, ok := parseKey(key)
	if !ok || p.kind > KeyAdmin {
		return Claim{}, false
	}
	kn, _, _ := d.shard(p.locator).find(p.locator)
	if kn == nil {
		return Claim{}, false
	}
	c = Claim{Company: kn.company.id, KeyID: keyName(string(p.id))}
	if a, _ := kn.find(p.id); a != nil && a.key.Kind == p.kind && d.minter.proves(key, &a.key.Hash) {
		c.ProjectID, c.Proved = a.key.ProjectID, true
	}
	return c, true
}

// claimOfToken reads a token that was refused. A company that is not in memory
// is not looked up.
func (d *Directory) claimOfToken(b []byte) (c Claim, ok bool) {
	t, err := parseToken(b)
	if err != nil {
		return Claim{}, false
	}
	for _, a := range t.audience {
		of, own := strings.CutPrefix(a, audiencePrefix)
		if !own {
			of = d.logins.audiences.known(a)
		}
		if kn, _, _ := d.shard([]byte(of)).find([]byte(of)); kn != nil {
			return Claim{Company: kn.company.id}, true
		}
	}
	return Claim{}, false
}

func (d *Directory) claimOfExchanged(b []byte) (c Claim, ok bool) {
	g, ok := parseExchanged(b)
	if !ok {
		return Claim{}, false
	}
	kn, _, _ := d.shard(g.locator).find(g.locator)
	if kn == nil {
		return Claim{}, false
	}
	c = Claim{Company: kn.company.id}
	if d.provesExchanged(c.Company, &g) {
		c.KeyID, c.Proved = string(g.text[exchangedFixed:]), true
		if _, r := kn.company.rule(c.KeyID); r != nil {
			c.ProjectID = r.ProjectID
		}
	}
	return c, true
}
