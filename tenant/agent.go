package tenant

import "time"

// Agent is a company's named model: a model with instructions, what it may look up
// and what it remembers. It grants nothing: whoever calls it needs the right to its
// model, and sees of its stores what the caller sees.
type Agent struct {
	ID        string
	ProjectID string // "": made with an admin key, for all projects
	CreatedBy string // the id of the key
	Slug      string // its name in a call: "agent/<slug>"
	Shared    bool   // with all projects of the company
	Version   int64  // from 1, raised with every change
	CreatedAt time.Time
	UpdatedAt time.Time
	AgentDefinition
}

// AgentDefinition is what a version of an agent is.
type AgentDefinition struct {
	Name         string            `json:"name,omitempty"`
	Model        string            `json:"model"`
	Instructions string            `json:"instructions,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	Knowledge    *Knowledge        `json:"knowledge,omitempty"`
	Memory       *Memory           `json:"memory,omitempty"`
}

// Memory says what an agent remembers.
type Memory struct {
	// Conversation lets calls join conversations; nil does.
	Conversation *bool `json:"conversation"`
	// WindowTokens is how many tokens of earlier turns go before a turn; nil is as the
	// gateway's configuration says.
	WindowTokens *int64 `json:"window_tokens"`
}

// Remembers reports whether calls of the agent can join conversations.
func (a *Agent) Remembers() bool {
	return a.Memory == nil || a.Memory.Conversation == nil || *a.Memory.Conversation
}

// Knowledge says what an agent looks up before it answers.
type Knowledge struct {
	// Stores are the vector stores; nil are all that the caller sees. Those that the
	// caller does not see are not searched.
	Stores     []string `json:"stores"`
	Categories []string `json:"categories,omitempty"` // none: all
	TopK       int      `json:"top_k"`                // passages at most
	MinScore   float64  `json:"min_score"`            // 0..1
	MaxTokens  int64    `json:"max_tokens"`           // of all passages together
	// Required refuses a call where not all could be searched in time.
	Required bool `json:"required"`
}

// AgentVersion is an agent as it once was.
type AgentVersion struct {
	Version   int64
	CreatedBy string
	CreatedAt time.Time
	AgentDefinition
}

// AgentPrefix stands before an agent's slug where a call names a model.
const AgentPrefix = "agent/"

// sees reports whether a is for the project; "" is the company.
func (a *Agent) sees(project string) bool {
	return project == "" || a.ProjectID == "" || a.ProjectID == project || a.Shared
}

// Agent returns the company's agent with that slug, nil if there is none that s may
// call.
func (s Scope) Agent(slug string) *Agent {
	a := s.Company().Agents[slug]
	if a == nil || !a.sees(s.ProjectID()) {
		return nil
	}
	return a
}

// DefaultAgent returns the agent of calls in the project of s that name a model,
// nil if there is none.
func (s Scope) DefaultAgent() *Agent {
	p := s.Project()
	if p == nil || p.DefaultAgent == "" {
		return nil
	}
	for _, a := range s.Company().Agents {
		if a.ID == p.DefaultAgent && a.sees(p.ID) {
			return a
		}
	}
	return nil
}

// Context is what a company tells its agents of itself.
type Context struct {
	ID        string
	CreatedBy string
	Kind      string // see ContextKinds
	Text      string
	CreatedAt time.Time
	UpdatedAt time.Time
}

// ContextKinds are the kinds of contexts in the order in which agents are told.
var ContextKinds = [...]string{"identity", "voice", "rules", "instructions"}

// Bounds of what a company tells its agents, all of it together.
const (
	MaxContexts     = 32
	MaxContextBytes = 32 << 10
)

// JoinContexts returns what agents are told: the same bytes for the same contexts.
func JoinContexts(all []Context) string {
	var b []byte
	for _, kind := range ContextKinds {
		first := true
		for i := range all {
			if all[i].Kind != kind {
				continue
			}
			if len(b) > 0 {
				b = append(b, "\n\n"...)
			}
			if first {
				b = append(append(append(b, "# "...), contextTitles[kind]...), '\n')
			}
			first = false
			b = append(b, all[i].Text...)
		}
	}
	return string(b)
}

var contextTitles = map[string]string{"identity": "Identity", "voice": "Voice", "rules": "Rules", "instructions": "Instructions"}
