package ledger

import (
	"context"
	"errors"
	"time"

	"bulkhead/tenant"
)

// Options bound a Ledger. Zero values take the defaults.
type Options struct {
	// Queue is how many places there are: for attempts that run, and for entries
	// that are in memory only, which without a journal are all that wait to be
	// shipped. Default 65,536, some 35 MB when all wait.
	Queue int
	// CompanyQueue is one company's share of them; default a quarter.
	CompanyQueue int
	// Batch is how many entries are shipped at once; default 512.
	Batch int
	// Every is how long an entry waits for others to be shipped with; default
	// 50 ms.
	Every time.Duration
	// Timeout is how long the Store may take for a batch; default 10 s.
	Timeout time.Duration
	// MaxBackoff is the longest pause between two tries; default 5 s. The first
	// is Every, and each is twice the one before.
	MaxBackoff time.Duration

	// Journal is the folder of the journal, made if it is missing; "" is none.
	// It belongs to one process, and to a file system of this machine: locks and
	// fsync are often not what they seem on one of another.
	Journal string
	// Process names this process to those that have the journal after it, see
	// Recovery.Earlier; "" is not to be named. Without spaces and newlines.
	Process string
	// Sync says when the journal survives the death of the machine; default
	// SyncDefault.
	Sync Sync
	// JournalBytes is how large the journal may become before Reserve refuses;
	// default 1 GiB. What runs then is still recorded.
	JournalBytes int64
	// CompanyJournalBytes is how much of that one company's entries that wait
	// may take; default a quarter.
	CompanyJournalBytes int64
	// SegmentBytes is how large a file of the journal becomes, about; default
	// 16 MiB, and at most an eighth of JournalBytes. The one that is written to has
	// that and an eighth more on the disk from its beginning.
	SegmentBytes int64
	// Memory is how many entries that wait are in memory as well as in the
	// journal; default 8,192, some 5 MB. The others take 16 bytes each.
	Memory int
	// CompanyMemory is one company's share of them; default a quarter.
	CompanyMemory int
	// ScopeOf opens a company that an earlier process left entries of. A fault
	// of kind NotFound, or tenant.ErrNotFound, says that the company is gone: its
	// entries are dropped. After any other error they wait and it is asked again.
	// It is needed with a journal.
	ScopeOf func(ctx context.Context, company string) (tenant.Scope, error)
	// Shipped is told, by the shipper, which entries of a company the store has
	// now. It must not wait. May be nil.
	Shipped func(s tenant.Scope, ids []string)

	openFile func(path string, room int64) (segmentFile, error)
}

// complete puts in the defaults.
func (o *Options) complete() error {
	setDefault(&o.Queue, 65_536)
	setDefault(&o.CompanyQueue, max(o.Queue/4, 1))
	setDefault(&o.Batch, 512)
	setDefault(&o.Every, 50*time.Millisecond)
	setDefault(&o.Timeout, 10*time.Second)
	setDefault(&o.MaxBackoff, 5*time.Second)
	setDefault(&o.JournalBytes, 1<<30)
	setDefault(&o.CompanyJournalBytes, max(o.JournalBytes/4, 1))
	setDefault(&o.SegmentBytes, 16<<20)
	o.SegmentBytes = min(o.SegmentBytes, max(o.JournalBytes/8, 1), 1<<30) // offsets have 32 bits
	setDefault(&o.Memory, 8192)
	setDefault(&o.CompanyMemory, max(o.Memory/4, 1))
	if o.Sync == 0 {
		o.Sync = SyncDefault
	}
	if o.openFile == nil {
		o.openFile = openFile
	}
	if o.Journal != "" && o.ScopeOf == nil {
		return errors.New("a ledger with a journal needs ScopeOf")
	}
	return nil
}

func setDefault[T ~int | ~int64](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Stats are what a Ledger has done and holds.
type Stats struct {
	Reserved      int           // attempts that run
	Queued        int           // entries that wait or are being shipped
	Lag           time.Duration // age of the oldest of them, since its attempt ended
	Shipped       int64         // entries
	FailedBatches int64         // tries that failed
	Refused       int64         // attempts refused for want of room, or of a journal that can be written
	Err           error         // of the last try to ship; nil if it succeeded

	JournalBytes  int64 // of all segments, without the room for more
	JournalLimit  int64 // Options.JournalBytes; 0 without a journal
	Segments      int   // files
	Recovered     int   // entries that earlier processes left, counted once at the start
	Unwritten     int   // entries that wait and could not be written to the journal: lost if the process is killed, and swept
	Unreadable    int64 // entries whose part of the journal could not be read; the file is kept
	Dropped       int64 // entries of companies that are gone
	JournalErrors int64 // writes, fsyncs and files that failed
	JournalErr    error // of the last one
}

// Stats returns the figures as they are now.
func (l *Ledger) Stats() Stats {
	l.mu.Lock()
	st := l.stats
	st.Queued, st.Reserved, st.Unwritten = l.q.waiting, l.q.running, l.q.unwritten
	st.Recovered = l.recovered.Closed + l.recovered.Swept
	if oldest := l.q.oldest(); !oldest.IsZero() {
		st.Lag = max(time.Since(oldest), 0)
	}
	l.mu.Unlock()
	if j := l.j; j != nil {
		st.JournalBytes, st.JournalLimit = j.bytes.Load(), l.o.JournalBytes
		j.mu.Lock()
		st.Segments, st.JournalErrors, st.JournalErr = len(j.segments), j.failures, j.err
		j.mu.Unlock()
	}
	return st
}

// Recovery is what Open found in the journal.
type Recovery struct {
	Closed   int       // entries that were recorded and are not known to be in the store
	Swept    int       // attempts that were opened and not recorded, booked with what was held
	Alive    time.Time // when the process before still lived, within seconds
	CutBytes int64     // of a last write that was broken off, as happens to a process that is killed
	Damage   []error   // what else could not be read, by file; what could was taken in
	Aside    []string  // files that were damaged and are put aside in the folder, since earlier starts

	// Earlier are the processes before, by Options.Process, whose every Open and
	// Record is in the store or was found here: what else they were about to do they
	// have not done. Those are missing of which that is not sure: because something
	// is damaged, or the machine died and had not written all. The last 31.
	Earlier []string
}

// Recovered returns what Open found in the journal.
func (l *Ledger) Recovered() Recovery { return l.recovered }
