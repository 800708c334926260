package tenant

import "context"

// lookup waits for a place among the look-ups under way.
func (d *Directory) lookup(ctx context.Context) (release func(), err error) {
	select {
	case d.loading <- struct{}{}:
	default:
		select {
		case d.loading <- struct{}{}:
		case <-ctx.Done():
			return nil, unavailable(ctx.Err())
		}
	}
	return func() { <-d.loading }, nil
}

// dropOne makes room in m for one more, at most limit in all. Which one goes is
// chance, so nobody can aim at another's. It returns what went, if anything did.
func dropOne[K comparable, V any](m map[K]V, limit int) (gone V) {
	if len(m) < max(limit, 1) {
		return gone
	}
	for k, v := range m {
		delete(m, k)
		return v
	}
	return gone
}
