package rag

import "bulkhead/fault"

// Chunking is how a file is split: OpenAI's chunking_strategy.
type Chunking struct {
	Static  bool // the client chose the sizes
	Tokens  int  // most of one chunk
	Overlap int  // tokens that a chunk repeats of the one before
}

// AutoChunking is OpenAI's default.
func AutoChunking() Chunking { return Chunking{Tokens: 800, Overlap: 400} }

// Check refuses sizes that OpenAI refuses.
func (c Chunking) Check(at string) error {
	if c.Tokens < 100 || c.Tokens > 4096 {
		return fault.Field(at+".static.max_chunk_size_tokens", "max_chunk_size_tokens is from 100 to 4096.")
	}
	if c.Overlap < 0 || c.Overlap > c.Tokens/2 {
		return fault.Field(at+".static.chunk_overlap_tokens", "chunk_overlap_tokens is from 0 to half of max_chunk_size_tokens.")
	}
	return nil
}

// Split splits.
func Split(text string, c Chunking) []string { return []string{text} }
