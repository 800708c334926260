package provider

import "bulkhead/openai"

// What images and sound are at most, and are likely to be, where neither the
// request nor the price table says it.
const (
	// The dearest image of the GPT image models is 6,240 tokens, at 1024x1536 in
	// high quality, and each partial one 100 more (OpenAI, "Image generation").
	// Sizes that newer models take are bounded by four times the area of that.
	imageTokens       = 4 * 6240
	likelyImageTokens = 6240
	partialTokens     = 100

	// An image to be edited: 6,240 more with high fidelity (same source).
	editTokens       = 65 + 8*129 + 6240
	likelyEditTokens = 2000

	// Of a file of sound. Nothing that is understood as speech is coded with less
	// than 400 bit/s; mostly it is more than 8 kbit/s.
	leastBytesPerSecond  = 50
	likelyBytesPerSecond = 1000
	tokensPerSecond      = 10 // heard (OpenAI, "Speech to text")

	// Speech is 20 tokens a second of output. A character takes a fifteenth of a
	// second, at the slowest speed four times as long.
	speechTokens       = 16
	likelySpeechTokens = 2
)

// boundMedia is Bound for images and sound. The upstream cannot be told to make
// less, so the output is fixed.
func (v *Vendor) boundMedia(r *openai.Request, rules *BoundRules) (Bound, error) {
	b := Bound{Answers: 1, Fixed: true, Strict: rules.Strict}
	if rules.Strict {
		if err := v.Bounded(r); err != nil {
			return b, err
		}
	}
	pick := func(most, likely int64) int64 {
		if rules.Strict {
			return most
		}
		return likely
	}
	text := plus(tokensPerRequest, times(2, r.TextBytes))
	switch r.Endpoint {
	case openai.Images, openai.ImageEdits, openai.ImageVariations:
		b.Images, b.Answers = r.N, r.N
		b.ImageInput = times(int64(r.Images), pick(editTokens, likelyEditTokens))
		b.Input = plus(text, b.ImageInput)
		b.Output = pick(imageTokens, likelyImageTokens) + r.PartialImages*partialTokens
	case openai.Speech:
		b.Characters, b.AudioOutput, b.Input = r.Characters, true, text
		b.Output = times(r.Characters, pick(speechTokens, likelySpeechTokens))
		if rules.MaxOutput > 0 {
			b.Output = min(b.Output, rules.MaxOutput)
		}
	default:
		b.Seconds = MediaSeconds(r, !rules.Strict)
		b.AudioInput = times(b.Seconds, tokensPerSecond)
		b.Output = plus(tokensPerRequest, b.AudioInput) // what is heard is not more than what is said of it
		if rules.MaxInput > 0 {
			b.AudioInput = min(b.AudioInput, rules.MaxInput)
		}
		if rules.MaxOutput > 0 {
			b.Output = min(b.Output, rules.MaxOutput)
		}
		b.Input = plus(text, b.AudioInput)
	}
	if rules.Strict {
		b.HardInput = b.Input
	}
	return b, nil
}

// MediaSeconds returns how long the sound in r lasts: at most, or likely.
func MediaSeconds(r *openai.Request, likely bool) int64 {
	per := int64(leastBytesPerSecond)
	if likely {
		per = likelyBytesPerSecond
	}
	return (r.AudioBytes + per - 1) / per
}

// MediaOutput returns how many tokens an answer is likely to have that is sound
// and says nothing of it.
func MediaOutput(r *openai.Request) int64 { return times(r.Characters, likelySpeechTokens) }
