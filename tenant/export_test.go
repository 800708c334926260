package tenant

// Remembered returns how many companies, unknown locators, and keys and refused
// key ids of all companies d keeps in memory.
func Remembered(d *Directory) (companies, unknown, keys, refused int) {
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.RLock()
		companies += len(s.companies)
		unknown += len(s.unknown)
		for _, kn := range s.companies {
			kn.mu.RLock()
			keys += len(kn.keys)
			refused += len(kn.refused)
			kn.mu.RUnlock()
		}
		s.mu.RUnlock()
	}
	return companies, unknown, keys, refused
}

// UnknownPerShard and Shards are the bounds of what is remembered as unknown.
const (
	UnknownPerShard = unknownPerShard
	Shards          = shardCount
)

// Hashing is how many passwords are being hashed now.
func Hashing(d *Directory) int { return len(d.hasher.working) }
