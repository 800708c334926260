package store

import (
	"slices"
	"testing"
)

func TestPositional(t *testing.T) {
	f := func(in, want string, order ...int) {
		t.Helper()
		got, gotOrder := positional(in)
		if got != want || !slices.Equal(gotOrder, order) {
			t.Errorf("positional(%q) = %q, %v; want %q, %v", in, got, gotOrder, want, order)
		}
		p := prepared{order: gotOrder}
		args := p.arguments([]any{"a", "b", "c"})
		for i, n := range order {
			if args[i] != []any{"a", "b", "c"}[n] {
				t.Errorf("arguments of %q = %v", in, args)
			}
		}
	}
	f("SELECT 1", "SELECT 1")
	f("INSERT INTO t VALUES ($1, $2, $3)", "INSERT INTO t VALUES (?, ?, ?)")
	f("a = $1 AND b = $2", "a = ? AND b = ?")
	f("a = $1 OR b = $1", "a = ? OR b = ?", 0, 0)
	f("a = $2 AND b = $1", "a = ? AND b = ?", 1, 0)
	f("a = $1 AND b = $3 AND c = $2", "a = ? AND b = ? AND c = ?", 0, 2, 1)
	f("$1 $2 $3 $4 $5 $6 $7 $8 $9 $10 $11", "? ? ? ? ? ? ? ? ? ? ?")
}
