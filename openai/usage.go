package openai

import "strconv"

// Usage is what an upstream says a call used, in tokens. CachedInput, CacheWrite,
// AudioInput, ImageInput are parts of Input; Reasoning, AudioOutput, ImageOutput,
// AcceptedPrediction, RejectedPrediction are parts of Output (OpenAI API
// reference, "The chat completion object"; CONTRACT section 7). Details the
// upstream left out are 0.
//
// Total is as sent. Some vendors leave reasoning out of Output but not out of
// Total: their adapter in package provider sets that right, not this package.
type Usage struct {
	Input       int64
	CachedInput int64
	CacheWrite  int64
	AudioInput  int64
	ImageInput  int64

	Output             int64
	Reasoning          int64
	AudioOutput        int64
	ImageOutput        int64
	AcceptedPrediction int64
	RejectedPrediction int64

	Total int64
}

// maxCount bounds a count of tokens, so that sums and prices cannot overflow.
const maxCount = 1 << 40

// usage reads the usage object. It reports whether the input or the output was
// said. A count that is not a whole number from 0 to 2^40 is taken as not said.
func (s *scanner) usage(u *Usage) (said bool, err error) {
	err = s.object(func(name []byte) error {
		var to *int64
		switch string(name) {
		case "prompt_tokens", "input_tokens":
			ok, err := s.count(&u.Input)
			said = said || ok
			return err
		case "completion_tokens", "output_tokens":
			ok, err := s.count(&u.Output)
			said = said || ok
			return err
		case "total_tokens":
			to = &u.Total
		case "prompt_cache_hit_tokens": // DeepSeek
			to = &u.CachedInput
		case "prompt_tokens_details", "input_tokens_details":
			return s.details(u.inputDetail)
		case "completion_tokens_details", "output_tokens_details":
			return s.details(u.outputDetail)
		}
		return s.countInto(to)
	})
	return said, err
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

// details reads an object of counts; field says where each belongs, nil for
// nowhere.
func (s *scanner) details(field func(name []byte) *int64) error {
	return s.object(func(name []byte) error { return s.countInto(field(name)) })
}

func (s *scanner) countInto(to *int64) (err error) {
	if to == nil {
		_, err = s.skip()
	} else {
		_, err = s.count(to)
	}
	return err
}

// count reads a count into to and reports whether it was one.
func (s *scanner) count(to *int64) (bool, error) {
	if s.peek() != '0' {
		_, err := s.skip()
		return false, err
	}
	raw, _, err := s.scalar()
	if err != nil {
		return false, err
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 0 || n > maxCount {
		return false, nil
	}
	*to = n
	return true, nil
}
