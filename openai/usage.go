package openai

import (
	"bytes"
	"strconv"
)

// Usage is what an upstream says a call used, in tokens where nothing else is
// said. CachedInput, CacheWrite, AudioInput, ImageInput are parts of Input, and
// CacheWrite1h is a part of CacheWrite; Reasoning, AudioOutput, ImageOutput,
// AcceptedPrediction, RejectedPrediction are parts of Output (OpenAI API
// reference, "The chat completion object"; CONTRACT section 7). Details the
// upstream left out are 0.
//
// Total is as sent. Vendors count differently what is a part of what: package
// provider sets that right (Vendor.Usage), not this package.
//
// Adding a field means adding it where package ledger prices it and where
// package store keeps it.
type Usage struct {
	Input        int64
	CachedInput  int64
	CacheWrite   int64
	CacheWrite1h int64 // what was written for an hour, where the usage tells it from five minutes
	AudioInput   int64
	ImageInput   int64

	Output             int64
	Reasoning          int64
	AudioOutput        int64
	ImageOutput        int64
	AcceptedPrediction int64
	RejectedPrediction int64

	Total int64

	// What is not counted in tokens.
	Searches      int64         // searches, or sources, that the vendor bills each
	SearchContext SearchContext // of a vendor whose fee for a call depends on it
	Tools         int64         // runs of tools by the vendor that are no searches
	Seconds       int64         // of audio, where that is what is billed; begun seconds are whole
	Images        int64         // made
	Characters    int64         // spoken or embedded, where that is what is billed
}

// SearchContext is how much a vendor looked up for a call, in its own words.
type SearchContext uint8

// The sizes of a search context.
const (
	SearchUnsaid SearchContext = iota
	SearchLow
	SearchMedium
	SearchHigh
)

// maxCount bounds a count of tokens, so that sums and prices cannot overflow.
const maxCount = 1 << 40

// Said is which counts a usage held.
type Said struct {
	Input, Output bool
	Bad           bool // some count was no whole number, or larger than 2^40
}

// ParseUsage reads raw, a usage object by itself, in OpenAI's or Anthropic's
// names. It does not know what a vendor counts as a part of what. The error,
// for anything but one JSON object, holds no text of it.
func ParseUsage(raw []byte) (u Usage, got Said, err error) {
	s := new(scanner)
	s.relayed(raw)
	if s.peek() != '{' {
		if _, err := s.skip(); err != nil {
			return u, got, answerError(err)
		}
		return u, got, errNotObject
	}
	if got, err = s.usage(&u); err == nil {
		err = s.end()
	}
	return u, got, answerError(err)
}

// usage reads the usage object. A count that is not a whole number from 0 to
// 2^40 is taken as not said.
func (s *scanner) usage(u *Usage) (got Said, err error) {
	var citations int64
	field := func(name []byte) error {
		switch string(name) {
		case "prompt_tokens", "input_tokens":
			return s.counted(&u.Input, &got.Input, &got.Bad)
		case "completion_tokens", "output_tokens":
			return s.counted(&u.Output, &got.Output, &got.Bad)
		case "prompt_tokens_details", "input_tokens_details", "input_token_details":
			return s.details(u.inputDetail, &got)
		case "completion_tokens_details", "output_tokens_details", "output_token_details":
			return s.details(u.outputDetail, &got)
		case "cache_creation": // Anthropic
			return s.details(u.cacheDetail, &got)
		case "server_tool_use": // Anthropic
			return s.tools(u, "web_search_requests", &got)
		case "server_side_tool_usage_details": // xAI
			return s.tools(u, "", &got)
		case "search_context_size": // Perplexity
			return s.searchContext(u)
		case "seconds":
			return s.seconds(u, &got)
		case "citation_tokens": // Perplexity; beside the prompt's
			return s.countInto(&citations, &got)
		}
		return s.countInto(u.topCount(name), &got)
	}
	err = s.object(field)
	u.Input += citations
	return got, err
}

// topCount returns where a count at the top of the usage belongs, nil for
// nowhere.
func (u *Usage) topCount(name []byte) *int64 {
	switch string(name) {
	case "total_tokens":
		return &u.Total
	case "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens": // DeepSeek, Moonshot, Anthropic
		return &u.CachedInput
	case "cache_creation_input_tokens": // Anthropic
		return &u.CacheWrite
	case "reasoning_tokens": // Perplexity
		return &u.Reasoning
	case "num_search_queries", "num_sources_used": // Perplexity, xAI
		return &u.Searches
	}
	return nil
}

func (u *Usage) inputDetail(name []byte) *int64 {
	switch string(name) {
	case "cached_tokens":
		return &u.CachedInput
	case "cache_write_tokens":
		return &u.CacheWrite
	case "audio_tokens":
		return &u.AudioInput
	case "image_tokens":
		return &u.ImageInput
	}
	return nil
}

func (u *Usage) outputDetail(name []byte) *int64 {
	switch string(name) {
	case "reasoning_tokens":
		return &u.Reasoning
	case "audio_tokens":
		return &u.AudioOutput
	case "image_tokens":
		return &u.ImageOutput
	case "accepted_prediction_tokens":
		return &u.AcceptedPrediction
	case "rejected_prediction_tokens":
		return &u.RejectedPrediction
	}
	return nil
}

func (u *Usage) cacheDetail(name []byte) *int64 {
	if string(name) == "ephemeral_1h_input_tokens" {
		return &u.CacheWrite1h
	}
	return nil
}

// details reads an object of counts; field says where each belongs, nil for
// nowhere.
func (s *scanner) details(field func(name []byte) *int64, got *Said) error {
	return s.object(func(name []byte) error { return s.countInto(field(name), got) })
}

// tools reads an object that counts the runs of each tool. search is the name
// that counts searches, all others are Tools but for what costs nothing beside
// its tokens.
func (s *scanner) tools(u *Usage, search string, got *Said) error {
	return s.object(func(name []byte) error {
		var n int64
		if err := s.countInto(&n, got); err != nil {
			return err
		}
		switch {
		case search != "" && string(name) == search:
			u.Searches = n
		case string(name) == "web_fetch_requests": // Anthropic: the fetched text is input
		default:
			u.Tools = min(u.Tools+n, maxCount)
		}
		return nil
	})
}

func (s *scanner) searchContext(u *Usage) error {
	if s.peek() != '"' {
		_, err := s.skip()
		return err
	}
	raw, _, err := s.scalar()
	switch string(unquote(raw)) {
	case "low":
		u.SearchContext = SearchLow
	case "medium":
		u.SearchContext = SearchMedium
	case "high":
		u.SearchContext = SearchHigh
	}
	return err
}

// seconds reads a length that may have a fraction.
func (s *scanner) seconds(u *Usage, got *Said) error {
	if s.peek() != '0' {
		_, err := s.skip()
		return err
	}
	raw, _, err := s.scalar()
	if err != nil {
		return err
	}
	whole, fraction, _ := bytes.Cut(raw, []byte{'.'})
	n, err := strconv.ParseInt(string(whole), 10, 64)
	if err != nil || n < 0 || n >= maxCount || bytes.ContainsAny(fraction, "eE") {
		got.Bad = true
		return nil
	}
	if len(bytes.Trim(fraction, "0")) > 0 {
		n++
	}
	u.Seconds, got.Input = n, true
	return nil
}

// counted is countInto for a count that must have been said.
func (s *scanner) counted(to *int64, ok, bad *bool) error {
	is, isBad, err := s.count(to)
	*ok, *bad = *ok || is, *bad || isBad
	return err
}

func (s *scanner) countInto(to *int64, got *Said) (err error) {
	if to == nil {
		_, err = s.skip()
		return err
	}
	_, bad, err := s.count(to)
	got.Bad = got.Bad || bad
	return err
}

// count reads a count into to and reports whether it was one. null, and a number
// below 0, which some servers take for unknown, is nothing said; anything else
// that is no count is bad.
func (s *scanner) count(to *int64) (ok, bad bool, err error) {
	if kind := s.peek(); kind != '0' {
		_, err := s.skip()
		return false, kind != 'n', err
	}
	raw, _, err := s.scalar()
	if err != nil {
		return false, false, err
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n > maxCount {
		return false, true, nil
	}
	if n < 0 {
		return false, false, nil
	}
	*to = n
	return true, false, nil
}
