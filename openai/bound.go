package openai

// Bound is the most a call may use, as Usage is what it did use. Package provider
// makes it of a Request and a target, package ledger prices it.
type Bound struct {
	Input      int64 // tokens, of all kinds together
	AudioInput int64 // how many of them may be audio
	ImageInput int64 // how many of them may be images
	HardInput  int64 // what Input cannot exceed whatever was estimated; 0 is not known

	Output  int64 // tokens of one answer
	Answers int64 // how many answers are billed
	Fixed   bool  // Output is the model's own bound, and cannot be lowered

	AudioOutput  bool // answers may have audio
	CacheWrite   bool // input may be written to a cache that costs extra
	CacheWrite1h bool // and for an hour

	// What is not counted in tokens.
	Images     int64 // made
	Seconds    int64 // of sound that is listened to
	Characters int64 // spoken

	Searches      int64 // by the vendor
	SearchContext SearchContext

	Tier    string // the service tier asked for
	AnyTier bool   // the vendor decides about the tier: any may be billed
	Strict  bool   // what has no bound is refused
}
