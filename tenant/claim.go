package tenant

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
