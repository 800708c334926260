package openai

// Buffered reports whether Next would return an event without reading, so that
// a caller may gather the events that have arrived before it writes them on.
func (e *EventReader) Buffered() bool {
	look := *e
	return look.find() >= 0
}
