package provider

import (
	"math"

	"bulkhead/fault"
	"bulkhead/openai"
)

// Bound is the most a call may use at a target. Package ledger prices it.
type Bound = openai.Bound

// DefaultMaxOutput is the bound of an answer where neither the client nor the
// operator says one, in tokens.
const DefaultMaxOutput = 16384

// BoundRules is what a bound depends on beside request and vendor.
type BoundRules struct {
	// Strict makes Input a bound that nothing exceeds, and refuses what has none.
	// Else it is an estimate: see EstimateTokens for how far it can be too low.
	Strict bool

	Model               string // the upstream's own name of it
	MaxInput, MaxOutput int64  // of the model, in tokens; 0 unknown
	DefaultOutput       int64  // 0 is DefaultMaxOutput

	// Injected is the size in bytes of the text that the gateway adds to what the
	// client sent: instructions, passages, memory.
	Injected int64
}

// What a request has beside its texts, in tokens. Formats of chats add 3 or 4 to
// a message (OpenAI, "Counting tokens"), templates of open models up to 8, and a
// system prompt of their own of up to 200 (gpt-oss) before all.
const (
	tokensPerMessage = 8
	tokensPerRequest = 256
	tokensPerTool    = 16
)

// Estimates of parts where they have no bound by piece.
const (
	likelyImage = 2000
	likelyFile  = 25_000 // some 20 pages

	// Audio is 10 tokens a second (OpenAI). Strictly, a character of base64 may be
	// one token: no codec gets near. Mostly it is at least 4 kB a second.
	audioCharsPerToken = 512
)

// Bound returns the most that r may use at v. The error, in strict mode only, is
// that of Bounded, or one of its kind for parts that neither a bound by piece nor
// the model's known maximum bounds.
//
// The input is bounded by the bytes of every text (twice that where the vendor's
// tokenizer is not known to work on bytes), a few tokens for each message and
// tool, and each image, audio and file by its piece, or by the most the model
// takes. The output is what the client limits it to, else the model's maximum, at
// most rules.DefaultOutput, for each answer; LimitOutput makes the upstream keep
// to it.
func (v *Vendor) Bound(r *openai.Request, rules BoundRules) (Bound, error) {
	if r.Endpoint.Media() {
		return v.boundMedia(r, &rules)
	}
	how := v.billing()
	b := Bound{Answers: 1, Tier: r.ServiceTier, Strict: rules.Strict}
	b.AudioOutput = r.AudioOut || !how.audioByHand
	b.CacheWrite1h = r.CacheControl
	b.CacheWrite = r.CacheControl || !how.cacheByHand
	b.AnyTier = rules.Strict && how.projectTier && (r.ServiceTier == "" || r.ServiceTier == "auto")
	if rules.Strict {
		if err := v.Bounded(r); err != nil {
			return b, err
		}
	}
	byModel := v.seen(r, &b, &how)
	if err := v.input(r, &b, &how, &rules); err != nil {
		return b, err
	}
	if !rules.Strict && v.Bounded(r) != nil {
		b.HardInput = 0 // something in it may bring more
	}
	return b, output(r, &b, byModel, &rules)
}

// seen takes in what the list says of the names in r. byModel says that nothing
// but the model bounds the output.
func (v *Vendor) seen(r *openai.Request, b *Bound, how *billing) (byModel bool) {
	for i := range r.Seen {
		s := &r.Seen[i]
		if s.Null {
			continue
		}
		row := billable(r, s)
		switch {
		case row == nil:
		case row.Cost == Model:
			byModel = true
		case row.Cost == Cache && s.Where != openai.Field:
			b.CacheWrite, b.CacheWrite1h = true, true
		case row.Runs && !(row.Cost == Fee && how.searchFee):
			b.Searches = 1 // at least; strict mode has refused it
		}
	}
	return byModel
}

// media adds up parts that are not text. One without a bound makes the sum
// unbounded, which the model's maximum may bound.
type media struct {
	sum, likely int64
	unbounded   bool
}

func (p *media) add(count, most, likely int64) {
	if count <= 0 {
		return
	}
	if most <= 0 {
		p.unbounded = true
		p.likely = plus(p.likely, times(count, likely))
		return
	}
	p.sum = plus(p.sum, times(count, most))
	p.likely = plus(p.likely, times(count, min(most, likely)))
}

// most returns the bound of the parts for a model that takes at most maxInput
// tokens in all; ok is false if there is none.
func (p *media) most(maxInput int64) (n int64, ok bool) {
	switch {
	case maxInput > 0 && (p.unbounded || p.sum > maxInput):
		return maxInput, true
	}
	return p.sum, !p.unbounded
}

func (v *Vendor) input(r *openai.Request, b *Bound, how *billing, rules *BoundRules) error {
	var images, audio, files media
	image := func(low bool) int64 {
		if how.image == nil {
			return 0
		}
		return how.image(rules.Model, low)
	}
	images.add(int64(r.LowImages), image(true), likelyImage)
	images.add(int64(r.Images-r.LowImages), image(false), likelyImage)
	audio.add(r.AudioBytes, 1, 1)
	audio.likely = (r.AudioBytes + audioCharsPerToken - 1) / audioCharsPerToken
	files.add(int64(r.Files), 0, likelyFile)
	for i := range r.Seen {
		if s := &r.Seen[i]; (s.Where == openai.MessageField || s.Where == openai.ItemType) && !s.Null && billable(r, s).costAt(v) == Media {
			audio.add(1, 0, likelyFile) // an answer in audio, or what a model thought, that the vendor has kept
		}
	}
	imageMost, imageOK := images.most(rules.MaxInput)
	audioMost, audioOK := audio.most(rules.MaxInput)
	fileMost, fileOK := files.most(rules.MaxInput)

	expansion := int64(2)
	if how.byteLevel {
		expansion = 1
	}
	frame := plus(tokensPerRequest, times(int64(r.Messages), tokensPerMessage))
	if r.Tools > 0 {
		frame = plus(frame, how.toolPrompt+times(int64(r.Tools), tokensPerTool))
	}
	frame = plus(frame, r.InputTokens)
	hard := plus(frame, times(expansion, plus(r.TextBytes, max(rules.Injected, 0))))
	hard = plus(hard, plus(imageMost, plus(audioMost, fileMost)))

	if imageOK && audioOK && fileOK {
		b.HardInput = hard
	} else if rules.Strict {
		param := "messages"
		if r.Endpoint == openai.Responses {
			param = "input"
		}
		return fault.Field(param, "The size of this model's input is not known, so its images, audio and files have no bound, and what this call may cost must have one.").
			WithCode(CodeNotPriced)
	}
	if rules.Strict {
		b.Input, b.AudioInput, b.ImageInput = hard, audioMost, imageMost
		return nil
	}
	b.AudioInput, b.ImageInput = audio.likely, images.likely
	b.Input = plus(frame, plus(estimateRequest(r), (max(rules.Injected, 0)+1)/2))
	b.Input = plus(b.Input, plus(images.likely, plus(audio.likely, files.likely)))
	if b.HardInput > 0 {
		b.Input = min(b.Input, b.HardInput)
	}
	return nil
}

// output sets how long the answers may be. byModel says that no limit can be
// sent.
func output(r *openai.Request, b *Bound, byModel bool, rules *BoundRules) error {
	switch r.Endpoint {
	case openai.Chat:
		b.Answers = r.N
	case openai.Responses:
	case openai.Completions:
		b.Answers = times(r.N, max(int64(r.InputItems), 1)) // for each prompt
	default:
		return nil
	}
	b.Output = r.MaxOutput
	if b.Output > 0 {
		return nil
	}
	b.Output = rules.DefaultOutput
	if b.Output <= 0 {
		b.Output = DefaultMaxOutput
	}
	switch {
	case !byModel:
		if rules.MaxOutput > 0 {
			b.Output = min(b.Output, rules.MaxOutput)
		}
	case rules.MaxOutput > 0:
		b.Output, b.Fixed = rules.MaxOutput, true
	case rules.Strict:
		return fault.Field("prediction", "A prediction makes the answer as long as the model allows, which is not known, and what this call may cost must be bounded.").
			WithCode(CodeNotPriced)
	default:
		b.Fixed = true
	}
	return nil
}

// plus and times are of numbers not below 0, and never more than math.MaxInt64.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func times(a, b int64) int64 {
	if a != 0 && b > math.MaxInt64/a {
		return math.MaxInt64
	}
	return a * b
}
