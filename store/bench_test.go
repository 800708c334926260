package store

import (
	"fmt"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// BenchmarkAppendEntries appends batches of 200, which is what the journal
// ships. One operation is one entry.
func BenchmarkAppendEntries(b *testing.B) {
	db, s := openWithCompany(b)
	AppendMany(b, db, s)
}

// AppendMany is BenchmarkAppendEntries on any database.
func AppendMany(b *testing.B, db *DB, s tenant.Scope) {
	now := time.Now()
	batch := make([]ledger.Booked, 0, 200)
	b.ReportAllocs()
	for i := 0; i < b.N; {
		batch = batch[:0]
		for ; len(batch) < cap(batch) && i < b.N; i++ {
			batch = append(batch, ledger.Booked{Scope: s, Entry: ledger.Entry{
				ID: fmt.Sprintf("att_%024d", i*7919), RequestID: "req_0123456789abcdef", ProjectID: "proj_0123456789", KeyID: "key_0123456789ab",
				Kind: "chat", Provider: "openai", Model: "gpt-4o-mini", Requested: "gpt-4o-mini", Outcome: ledger.Answered,
				Rank: ledger.Final, Status: 200, Usage: openai.Usage{Input: 1000, Output: 200, Total: 1200}, Priced: true, CostNano: 1_000_000, LowNano: 1_000_000, HighNano: 1_000_000, First: true,
				StartedAt: now, EndedAt: now.Add(time.Duration(i) * time.Microsecond),
			}})
		}
		if err := db.AppendEntries(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
}
