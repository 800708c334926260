package ledger

import "time"

// RollupOptions say how a company's entries are added up by day, and for how long
// they are kept. Zero values of the numbers take the defaults.
type RollupOptions struct {
	Now  time.Time     // a day is over by this clock
	Keep time.Duration // entries are kept so long after their day, at least 70 days; 0: for ever
	Days int           // how many days are added up at most, and how many are closed; default 50
	Step int           // how many entries are read in one transaction; default 20,000
}

// Rolled is what was done.
type Rolled struct {
	Days, Closed, Steps int       // days added up, days whose entries went, transactions
	Next                time.Time // when there is more to do; zero: when entries come
}
