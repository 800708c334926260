package provider

import (
	"strings"

	"bulkhead/openai"
)

// billing is what matters for money in how a vendor reads requests and counts
// what they used. A new vendor is a new case; the zero value is the careful one.
type billing struct {
	// reasoning says where the vendor counts what a model thinks unseen.
	reasoning reasoning

	// eachChunk: usage comes with every chunk of a stream, the last counts.
	eachChunk bool

	// byteLevel: the tokenizer works on bytes, so that a text has no more tokens
	// than bytes.
	byteLevel bool

	// maxTokensOnly: max_completion_tokens is refused or not looked at.
	maxTokensOnly bool

	// projectTier: no service_tier, and "auto", mean what the vendor's project is
	// set to.
	projectTier bool

	// cacheByHand: nothing is written to a prompt cache that the request does not
	// ask for.
	cacheByHand bool

	// audioByHand: an answer has no audio that the request does not ask for.
	audioByHand bool

	// searchFee: web_search_options costs the fee of the call, however much is
	// searched.
	searchFee bool

	// toolPrompt is what the vendor adds to a request with tools, in tokens.
	toolPrompt int64

	// image is the most tokens an image may be for a model; nil, and 0, is no such
	// bound.
	image func(model string, low bool) int64
}

// reasoning says where a vendor counts reasoning tokens.
type reasoning uint8

const (
	reasoningInside reasoning = iota // in completion_tokens, as OpenAI's API reference has it
	reasoningApart                   // beside completion_tokens, in total_tokens
	reasoningHidden                  // in total_tokens only
	reasoningBeside                  // beside both
)

// commonToolPrompt is for templates of open models, which wrap tools in some
// hundred tokens.
const commonToolPrompt = 512

func (v *Vendor) billing() billing {
	b := billing{toolPrompt: commonToolPrompt}
	switch v.Kind {
	case "openai", "azure":
		b.byteLevel, b.projectTier, b.audioByHand, b.image = true, true, true, openaiImage
	case "anthropic":
		// The system prompt for tools is 300 to 700 tokens (Anthropic, "Tool use").
		b.cacheByHand, b.toolPrompt, b.image = true, 1024, anthropicImage
	case "gemini":
		// Gemma's published SentencePiece model falls back to bytes. Thoughts are in
		// the total only.
		b.byteLevel, b.eachChunk, b.reasoning = true, true, reasoningHidden
	case "xai":
		// "counted separately from completion_tokens, but … in the total_tokens"
		// (xAI, "Consumption and rate limits"). 6 tiles of 448 pixels at most and one
		// of the whole, 256 tokens each (xAI, "Image understanding").
		b.eachChunk, b.reasoning, b.image = true, reasoningApart, func(string, bool) int64 { return 7 * 256 }
	case "perplexity":
		b.eachChunk, b.reasoning, b.maxTokensOnly, b.searchFee = true, reasoningBeside, true, true
	case "deepseek", "mistral", "together":
		b.byteLevel, b.maxTokensOnly = true, true
	case "groq", "fireworks", "cerebras":
		b.byteLevel = true
	case "ollama":
		b.maxTokensOnly = true
	case Sandbox:
		b.byteLevel, b.toolPrompt = true, 0
	}
	return b
}

// imageFamily is how an OpenAI model counts images: a base and a number for each
// of at most 8 tiles of 512 pixels (2,048 by 768), or patches of 32 pixels, at
// most so many, times hundredths.
type imageFamily struct {
	name       string
	base, tile int64
	patches    int64
	perHundred int64
}

// Source: OpenAI, "Images and vision", "Calculating costs". A family is a model's
// name, alone or with a date behind it.
var imageFamilies = []imageFamily{
	{name: "gpt-4o-mini", base: 2833, tile: 5667},
	{name: "gpt-4o", base: 85, tile: 170},
	{name: "gpt-4.1-mini", patches: 1536, perHundred: 162},
	{name: "gpt-4.1-nano", patches: 1536, perHundred: 246},
	{name: "gpt-4.1", base: 85, tile: 170},
	{name: "gpt-4.5-preview", base: 85, tile: 170},
	{name: "gpt-5-mini", patches: 1536, perHundred: 162},
	{name: "gpt-5-nano", patches: 1536, perHundred: 246},
	{name: "gpt-5-chat", base: 70, tile: 140},
	{name: "gpt-5", base: 70, tile: 140},
	{name: "o1-pro", base: 75, tile: 150},
	{name: "o1", base: 75, tile: 150},
	{name: "o3", base: 75, tile: 150},
	{name: "o4-mini", patches: 1536, perHundred: 172},
	{name: "computer-use-preview", base: 65, tile: 129},
}

// What an image of a model of no known family may be at most: of all families,
// and of the 10,000 patches that newer models take with detail "original".
const (
	anyImage    = 2833 + 8*5667
	anyLowImage = 2833
)

func openaiImage(model string, low bool) int64 {
	for i := range imageFamilies {
		f := &imageFamilies[i]
		if !family(model, f.name) {
			continue
		}
		switch {
		case f.patches > 0: // detail does not lower it
			return (f.patches*f.perHundred + 99) / 100
		case low:
			return f.base
		}
		return f.base + 8*f.tile
	}
	if low {
		return anyLowImage
	}
	return anyImage
}

// family reports whether model is name, perhaps with a date or "latest".
func family(model, name string) bool {
	rest, ok := strings.CutPrefix(model, name)
	return ok && (rest == "" || rest == "-latest" || strings.HasPrefix(rest, "-20"))
}

// anthropicImage: images are made smaller than about 1,600 tokens, newer models
// take up to 4,784 (Anthropic, "Vision").
func anthropicImage(string, bool) int64 { return 4784 }

// LimitOutput sets in f what makes the vendor keep to b: the output limit, in
// the field that it looks at. Where b was made for a budget it must be sent.
func (v *Vendor) LimitOutput(f *openai.UpstreamForm, b *Bound) {
	if b.Fixed || b.Output <= 0 {
		return
	}
	f.MaxOutput = b.Output
	if f.MaxTokensOnly = f.MaxTokensOnly || v.billing().maxTokensOnly; f.MaxTokensOnly || v.Kind == "custom" {
		f.MaxOutputField = "max_tokens" // what servers that copy OpenAI's API have known for longer
	}
}
