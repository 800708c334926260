package provider

import (
	"encoding/json"
	"errors"
	"strconv"

	"bulkhead/openai"
)

// maxCount bounds a count of tokens; a larger one is none, as in openai.
const maxCount = 1 << 40

// AnthropicUsage reads raw, the usage of an answer of Anthropic's own API, of a
// message or of a message_start or message_delta event. There input_tokens has
// neither what was read from a cache nor what was written to one; here Input has
// both. tier is what is billed: "batch", "priority" or "standard", "fast" for
// speed "fast", or "us" for an answer bound to that geography: the last two cost
// more than the table's rates.
func AnthropicUsage(raw []byte) (u openai.Usage, tier string, said openai.Said, err error) {
	if u, said, err = openai.ParseUsage(raw); err != nil {
		return u, "", said, err
	}
	u.CacheWrite = max(u.CacheWrite, u.CacheWrite1h)
	u.Input += u.CachedInput + u.CacheWrite
	u.Total = u.Input + u.Output
	var more struct {
		ServiceTier  text `json:"service_tier"`
		Speed        text `json:"speed"`
		InferenceGeo text `json:"inference_geo"`
		Details      struct {
			Thinking count `json:"thinking_tokens"`
		} `json:"output_tokens_details"`
	}
	if err := json.Unmarshal(raw, &more); err != nil {
		return u, "", said, errors.New("the usage is no object of the known form")
	}
	u.Reasoning = max(u.Reasoning, more.Details.Thinking.n)
	said.Bad = said.Bad || more.Details.Thinking.bad
	switch {
	case more.Speed == "fast":
		return u, "fast", said, nil
	case more.InferenceGeo == "us":
		return u, "us", said, nil
	}
	return u, string(more.ServiceTier), said, nil
}

// GeminiUsage reads raw, the usageMetadata of an answer of Gemini's own API. There
// candidatesTokenCount has neither thoughts nor, promptTokenCount, what tools
// brought; here Output and Input have them. Searches are not in it: they are the
// webSearchQueries of each candidate's groundingMetadata.
func GeminiUsage(raw []byte) (u openai.Usage, tier string, said openai.Said, err error) {
	var m struct {
		Prompt     count      `json:"promptTokenCount"`
		Candidates count      `json:"candidatesTokenCount"`
		Thoughts   count      `json:"thoughtsTokenCount"`
		Cached     count      `json:"cachedContentTokenCount"`
		ToolUse    count      `json:"toolUsePromptTokenCount"`
		Total      count      `json:"totalTokenCount"`
		PromptBy   modalities `json:"promptTokensDetails"`
		ToolBy     modalities `json:"toolUsePromptTokensDetails"`
		OutBy      modalities `json:"candidatesTokensDetails"`
		Traffic    text       `json:"trafficType"`
		Tier       text       `json:"serviceTier"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return u, "", said, errors.New("the usageMetadata is no object of the known form")
	}
	for _, c := range []*count{&m.Prompt, &m.Candidates, &m.Thoughts, &m.Cached, &m.ToolUse, &m.Total} {
		said.Bad = said.Bad || c.bad
	}
	said.Bad = said.Bad || m.PromptBy.bad || m.ToolBy.bad || m.OutBy.bad
	said.Input = m.Prompt.said
	said.Output = m.Candidates.said || m.Thoughts.said
	u = openai.Usage{
		Input:       m.Prompt.n + m.ToolUse.n,
		CachedInput: m.Cached.n,
		AudioInput:  m.PromptBy.audio + m.ToolBy.audio,
		ImageInput:  m.PromptBy.image + m.ToolBy.image,
		Output:      m.Candidates.n + m.Thoughts.n,
		Reasoning:   m.Thoughts.n,
		AudioOutput: m.OutBy.audio,
		ImageOutput: m.OutBy.image,
		Total:       m.Total.n,
	}
	// A refused prompt, and a chunk before the first candidate, has no candidates.
	if hidden := u.Total - u.Input - u.Output; said.Input && hidden > 0 {
		u.Output += hidden
		u.Reasoning += hidden
	}
	tier = string(m.Tier)
	if tier == "" {
		switch m.Traffic {
		case "ON_DEMAND_PRIORITY":
			tier = "priority"
		case "ON_DEMAND_FLEX":
			tier = "flex"
		}
	}
	return u, tier, said, nil
}

// count is a number of tokens as a vendor writes it. What is no whole number is
// bad, null and what is below 0 is not said.
type count struct {
	n         int64
	said, bad bool
}

func (c *count) UnmarshalJSON(raw []byte) error {
	*c = count{}
	if string(raw) == "null" {
		return nil
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	switch {
	case err != nil || n > maxCount:
		c.bad = true
	case n >= 0:
		c.n, c.said = n, true
	}
	return nil
}

// text is a string, or "" for a value of another kind.
type text string

func (t *text) UnmarshalJSON(raw []byte) error {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		*t = text(s)
	}
	return nil
}

// modalities are counts by what they are of; text needs none.
type modalities struct {
	audio, image int64
	bad          bool
}

func (m *modalities) UnmarshalJSON(raw []byte) error {
	var list []struct {
		Modality text  `json:"modality"`
		Count    count `json:"tokenCount"`
	}
	if json.Unmarshal(raw, &list) != nil {
		m.bad = true
		return nil
	}
	for _, d := range list {
		m.bad = m.bad || d.Count.bad
		switch d.Modality {
		case "AUDIO":
			m.audio += d.Count.n
		case "IMAGE":
			m.image += d.Count.n
		}
	}
	m.audio, m.image = min(m.audio, maxCount), min(m.image, maxCount)
	return nil
}
