package ledger

import "time"

// UsageQuery asks what a company has used in a span of time. An empty list of
// values does not narrow.
type UsageQuery struct {
	From, Until time.Time     // whole buckets, in UTC
	Bucket      time.Duration // a minute, an hour or a day

	Kinds, Projects, Keys, Users []string // as in Entry
	Models                       []string // "provider/model" or the model alone
	Lines                        []string // see UsageSum.Line
	Batch                        Batch

	By UsageBy
	// Rows is how many sums are returned at most, at least 1.
	Rows int
}

// UsageBy says by what the sums of a bucket are told apart.
type UsageBy struct{ Project, Key, User, Model, Tier bool }

// Batch says which entries count.
type Batch int

// Batch jobs are billed at the tier of this name.
const (
	AnyBatch Batch = iota
	OnlyBatch
	NoBatch

	BatchTier = "batch"
)

// UsageSum is what was used in a bucket. The fields that UsageBy does not name are
// "". Of lent credentials no cached tokens are told: they count as plain input.
type UsageSum struct {
	At                                         time.Time // when the bucket begins
	ProjectID, KeyID, UserID, Provider, Model  string
	Tier                                       string // "" is the standard one
	Requests, Attempts, Unpriced               int64  // Requests leaves fallbacks out
	CostNano                                   int64
	Input, CachedInput, CacheWrite, AudioInput int64
	ImageInput, Output, Reasoning              int64
	AudioOutput, ImageOutput                   int64
}

// ModelName is how a model is named in sums: as a client can ask for it.
func (u *UsageSum) ModelName() string { return u.Provider + "/" + u.Model }

// Line names what is billed: the model, and the tier unless it is the standard one.
func (u *UsageSum) Line() string {
	if u.Tier == "" {
		return u.ModelName()
	}
	return u.ModelName() + ", " + u.Tier
}

// Add adds the figures of v.
func (u *UsageSum) Add(v *UsageSum) {
	u.Requests += v.Requests
	u.Attempts += v.Attempts
	u.Unpriced += v.Unpriced
	u.CostNano += v.CostNano
	u.Input += v.Input
	u.CachedInput += v.CachedInput
	u.CacheWrite += v.CacheWrite
	u.AudioInput += v.AudioInput
	u.ImageInput += v.ImageInput
	u.Output += v.Output
	u.Reasoning += v.Reasoning
	u.AudioOutput += v.AudioOutput
	u.ImageOutput += v.ImageOutput
}
