package rag

// ExtractError says why a file has no text for us, in words for its owner.
type ExtractError FileError

func (e *ExtractError) Error() string { return e.Message }
