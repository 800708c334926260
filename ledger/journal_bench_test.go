package ledger

import (
	"context"
	"testing"
	"time"

	"bulkhead/openai"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// usual is an entry like most, of before the time in a bubble.
func usual(id string) Entry {
	return Entry{
		ID: id, RequestID: "req_0198f2c1a7b04c3d9e5f6a7b8c9d0e1f", ProjectID: "proj_7k2m9q4x1c8v", KeyID: "key_7k2m9q4x1c8vbn3d",
		Kind: "chat", Provider: "openai", Model: "gpt-4o-mini-2024-07-18", Requested: "gpt-4o-mini", Tier: "default",
		Outcome: Answered, Rank: Final, Status: 200, First: true, Priced: true,
		Usage:    openai.Usage{Input: 1234, CachedInput: 1024, Output: 256, Total: 1490},
		CostNano: 338_700, LowNano: 338_700, HighNano: 338_700,
		StartedAt: time.Unix(940_000_000, 123_456_789).UTC(), EndedAt: time.Unix(940_000_002, 987_654_321).UTC(),
	}
}

// inJournal returns Options for a Ledger with a journal in dir, whose companies
// are those of scopes.
func inJournal(dir string, scopes ...tenant.Scope) Options {
	return Options{Journal: dir, ScopeOf: scopeOf(scopes...)}
}

func scopeOf(scopes ...tenant.Scope) func(context.Context, string) (tenant.Scope, error) {
	return func(_ context.Context, company string) (s tenant.Scope, err error) {
		for _, s := range scopes {
			if s.ID().String() == company {
				return s, nil
			}
		}
		return s, tenant.ErrNotFound
	}
}

// BenchmarkJournal is what the journal costs an attempt: open and close, with the
// reservation, and the shipping that goes on beside it.
func BenchmarkJournal(b *testing.B) {
	f := func(name string, journal bool, sync Sync) {
		b.Run(name, func(b *testing.B) {
			s := tenanttest.Scope(b, "acme")
			o := Options{}
			if journal {
				o = inJournal(b.TempDir(), s)
			}
			o.Sync, o.JournalBytes, o.CompanyJournalBytes, o.SegmentBytes = sync, 1<<40, 1<<40, 16<<20
			o.Queue, o.CompanyQueue = 1<<30, 1<<30
			l := open(b, &nullStore{}, o)
			e := usual(NewAttemptID())
			var bytes int64
			b.ReportAllocs()
			for b.Loop() {
				slot, err := l.Reserve(s)
				if err == nil {
					err = slot.Open(e)
				}
				if err != nil {
					b.Fatal(err)
				}
				slot.Record(e)
				bytes++
			}
			b.StopTimer()
			if err := l.Close(b.Context()); err != nil {
				b.Error(err)
			}
		})
	}
	f("none", false, 0)
	f("off", true, SyncOff)
	f("10ms", true, SyncDefault)
	f("always", true, SyncAlways)
}

// BenchmarkEntry is the encoding alone.
func BenchmarkEntry(b *testing.B) {
	e := usual(NewAttemptID())
	buf := appendEntry(nil, "org-7k2m9q4x1c8v", &e)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = appendEntry(buf[:0], "org-7k2m9q4x1c8v", &e)
		}
		b.ReportMetric(float64(len(buf)), "bytes")
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := decodeEntry(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
