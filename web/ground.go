package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// told is what an agent is told beside what the client wrote, the same for each
// attempt of a call.
type told struct {
	system   string // the company's contexts and the agent's instructions
	passages string // what was found, as it stands in the last user's message
	most     int64  // bytes that both may have together: what is held
	asked    bool   // it was looked for passages
	header   string // x-bulkhead-knowledge
	used     []rag.Passage
}

// bytesPerPassageToken bounds the passages that are held: a token of text is
// seldom longer.
const bytesPerPassageToken = 4

// beAgent makes the call that of an agent: the one that it names as its model, or
// the one that the project has for calls that name a model. Whether the caller may
// use the agent's model is for the router to say.
func (c *call) beAgent() {
	c.requested = c.model
	if c.endpoint != openai.Chat {
		return
	}
	if slug, ok := strings.CutPrefix(c.model, tenant.AgentPrefix); ok {
		if c.agent = c.scope.Agent(slug); c.agent != nil {
			c.model = c.agent.Model
		}
	} else {
		c.agent = c.scope.DefaultAgent()
	}
	if c.agent == nil {
		return
	}
	c.told.system = c.agent.Instructions
	if contexts := c.scope.Company().Contexts; contexts != "" {
		c.told.system = strings.TrimSuffix(contexts+"\n\n"+c.agent.Instructions, "\n\n")
	}
	if c.told.system != "" {
		c.told.most = int64(len(c.told.system)) + messageFrame
	}
	if k := c.agent.Knowledge; k != nil && !c.request.LastUser.Empty() {
		c.told.most += int64(openai.PassagesOverhead) + k.MaxTokens*bytesPerPassageToken + int64(k.TopK*openai.PassageOverhead)
	}
}

// messageFrame is what a message of its own takes at most beside its text, in bytes.
const messageFrame = 16

// errNoKnowledge is for agents that must not answer without what they know.
func errNoKnowledge(cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "What this agent needs to know cannot be looked up at the moment, and it does not answer without.").WithCode("knowledge_unavailable")
}

// ground looks for what the agent knows about the question, once. The hold has
// been taken: it has room for what may be found.
func (c *call) ground() error {
	if c.agent == nil || c.agent.Knowledge == nil || c.told.asked || c.request.LastUser.Empty() {
		return nil
	}
	c.told.asked = true
	k := c.agent.Knowledge
	begun := c.g.now()
	found, err := c.find(k)
	c.g.metrics.retrieval.Observe(c.g.now().Sub(begun).Seconds())
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	missing := errors.Join(err, found.Missing)
	if missing != nil {
		c.g.metrics.notRetrieved.Inc()
		if k.Required {
			return errNoKnowledge(why(missing))
		}
	}
	c.told.used = fit(found.Passages, k)
	if len(c.told.used) > 0 {
		c.told.passages = string(openai.AppendPassages(nil, newMark(), passagesOf(c.told.used)))
	}
	c.told.header = knowledgeHeader(c.told.used, missing)
	return nil
}

// find looks in the company's own knowledge, and in the operator's where that
// falls short.
func (c *call) find(k *tenant.Knowledge) (rag.Found, error) {
	if c.g.Retriever == nil {
		return rag.Found{}, errors.New("there is nothing to look up in")
	}
	q := rag.Query{Text: []string{string(c.request.LastUserText(nil))}, TopK: k.TopK, MinScore: k.MinScore, Filter: categories(k.Categories)}
	found, err := c.g.Retriever.Turn(c.ctx, c.scope, c.turn(), c.request.LastUserAt < c.request.Messages-1, k.Stores, q)
	if err != nil || len(found.Passages) >= k.TopK {
		return found, err
	}
	q.TopK -= len(found.Passages)
	return c.g.addMaster(c.ctx, c.scope, found, q)
}

// turn names the current turn: the agent, and the messages up to the last user's.
// What follows them in later calls of a tool loop changes nothing.
func (c *call) turn() string {
	if c.said != nil {
		return c.said.turnOf(c.agent.ID, string(c.request.LastUserText(nil)))
	}
	h := sha256.New()
	h.Write([]byte(c.agent.ID))
	h.Write([]byte{0})
	h.Write(c.request.Body[c.request.MessagesSpan.Start:c.request.LastUser.End])
	return hex.EncodeToString(h.Sum(nil))
}

// categories returns the filter for files of these categories; none is no filter.
func categories(names []string) *rag.Filter {
	if len(names) == 0 {
		return nil
	}
	all := make([]any, len(names))
	for i, n := range names {
		all[i] = n
	}
	return &rag.Filter{Type: "in", Key: rag.CategoryKey, Value: all}
}

// fit returns as many of the passages, from the best on, as the agent may be told.
// One that is too long is left out whole: half a passage may say the opposite.
func fit(all []rag.Passage, k *tenant.Knowledge) (used []rag.Passage) {
	var tokens, bytes int64
	for _, p := range all {
		n := provider.EstimateTokens([]byte(p.Text)) + provider.EstimateTokens([]byte(p.FileName))
		size := int64(len(p.Text) + len(p.FileName))
		if tokens+n > k.MaxTokens || bytes+size > k.MaxTokens*bytesPerPassageToken {
			continue
		}
		tokens, bytes = tokens+n, bytes+size
		used = append(used, p)
	}
	return used
}

func passagesOf(all []rag.Passage) []openai.Passage {
	out := make([]openai.Passage, len(all))
	for i := range all {
		out[i] = openai.Passage{Title: all[i].FileName, Text: all[i].Text}
	}
	return out
}

// newMark returns a mark that nobody can guess.
func newMark() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// knowledgeHeader says what was used: how many passages, of which files and where
// in them, and whether some of what there is could not be searched.
func knowledgeHeader(used []rag.Passage, missing error) string {
	var b strings.Builder
	b.WriteString("passages=" + strconv.Itoa(len(used)))
	for i := range used {
		if i == 0 {
			b.WriteString("; sources=")
		} else {
			b.WriteByte(',')
		}
		b.WriteString(used[i].FileID + "#" + strconv.Itoa(used[i].Index))
	}
	if missing != nil {
		b.WriteString("; missing=" + why(missing).Error())
	}
	return b.String()
}

var (
	errLate = errors.New("timeout")
	errAway = errors.New("unavailable")
)

// why says in a word why not all could be searched. What a provider said of it may
// hold what was asked, and goes nowhere.
func why(missing error) error {
	if fault.Is(missing, fault.Timeout) || errors.Is(missing, context.DeadlineExceeded) {
		return errLate
	}
	return errAway
}

// annotationsHeader asks for what was used, as annotations of the answer.
const annotationsHeader = "X-Bulkhead-Annotations"

// citations returns what was used, where the client asked for it.
func (c *call) citations() []openai.Citation {
	if !c.annotates {
		return nil
	}
	all := make([]openai.Citation, len(c.told.used))
	for i, p := range c.told.used {
		all[i] = openai.Citation{Type: "file_citation", Index: i + 1, FileID: p.FileID, FileName: p.FileName, StoreID: p.StoreID, Score: p.Score}
	}
	return all
}

// annotate adds what was used to the messages of an answer that is not a stream.
func (c *call) annotate() (err error) {
	all := c.citations()
	if len(all) == 0 {
		return nil
	}
	if c.answer, err = openai.AppendAnnotated(make([]byte, 0, len(c.answer)+256*len(all)), c.answer, all); err != nil {
		return garbage("the provider's answer is not a valid one", err)
	}
	return nil
}

// cite makes, at the first chunk with choices, the event that says what was used. It
// is sent before the chunk that ends a choice.
func (s *stream) cite(data []byte) error {
	if s.cited || s.chunk.EmptyChoices {
		return nil
	}
	s.cited = true
	all := s.c.citations()
	if len(all) == 0 {
		return nil
	}
	var err error
	if s.citing, err = openai.AppendAnnotationChunk([]byte("data: "), data, s.c.request.N, all); err != nil {
		return garbage("the provider sent an event that is not valid", err)
	}
	s.citing = append(s.citing, "\n\n"...)
	return nil
}

// appendCitations appends that event, once.
func (s *stream) appendCitations() {
	s.out, s.citing = append(s.out, s.citing...), nil
}
