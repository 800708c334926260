package tenant

import "time"

// ResponseFor is how long it is known whose a response is: as long as OpenAI
// keeps one (API reference, "Conversation state").
const ResponseFor = 30 * 24 * time.Hour

// Response is an answer that a provider keeps under an id: whose it is, and who
// has it. Nothing of what it says is here.
type Response struct {
	ID         string // as the provider made it: see openai.ResponseID
	Project    string // id
	CreatedBy  string // id of the key, or of the rule
	User       string // the end user's id, "" for none
	Provider   string
	Credential string // id of the credential that it was made with
	Model      string // the provider's own name of it
	Tokens     int64  // of its input and its output together, 0 if not known
	CreatedAt  time.Time
	Until      time.Time
}

// Owns reports whether the holder of s may use r: it is of their project, and, if
// they speak for one end user only, of that one. A test key owns none: no provider
// has answered it.
func (s Scope) Owns(r Response) bool {
	if s.Test() || r.Project != s.ProjectID() {
		return false
	}
	return s.EndUser() == "" || s.EndUser() == r.User
}
