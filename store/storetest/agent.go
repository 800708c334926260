package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/rag"
	"bulkhead/tenant"
)

func agent(id, slug, project, says string, at time.Time) tenant.Agent {
	return tenant.Agent{ID: id, Slug: slug, ProjectID: project, CreatedBy: "key_same", Version: 1, CreatedAt: at,
		AgentDefinition: tenant.AgentDefinition{Name: says, Model: "up/ok", Instructions: says + " instructions", Knowledge: &tenant.Knowledge{TopK: 3}}}
}

func contextOf(id, kind, says string, at time.Time) tenant.Context {
	return tenant.Context{ID: id, CreatedBy: "key_same", Kind: kind, Text: says, CreatedAt: at}
}

var quota = rag.Quota{Files: 100, Bytes: 1 << 20, Stores: 100, StoreFiles: 100}

// furnishAgents gives a company an agent, a context and the words of a file.
func furnishAgents(t *testing.T, w *world, s tenant.Scope, name string, at time.Time) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	must(t, db.CreateAgent(ctx, s, agent("agent_same", "same", "proj_same", name+" agent", at), 10))
	changed := agent("agent_same", "same", "proj_same", name+" changed", at)
	_, err := db.UpdateAgent(ctx, s, changed)
	must(t, err)
	must(t, db.CreateAgent(ctx, s, agent("agent_shared", name+"-shared", "", name+" shared", at), 10))
	must(t, db.CreateContext(ctx, s, contextOf("context_same", "identity", name+" identity", at)))
	must(t, db.SetDefaultAgent(ctx, s, "proj_same", "agent_same"))
	must(t, db.SetEmbeddingModel(ctx, s, name+"/embeddings"))

	must(t, db.PutSegment(ctx, s, "vs_same", "file-same", 1, []byte(name+" segment")))
}

// seeAgents reads all there is of agents.
func seeAgents(w *world, s tenant.Scope, see func(what string, v any, err error)) {
	ctx, db := w.ctx(), w.db
	for _, p := range []openai.Page{all, {Limit: 10, Desc: true}, {Limit: 10, After: "agent_same"}} {
		agents, _, err := db.Agents(ctx, s, p)
		see("agents", agents, err)
	}
	a, err := db.Agent(ctx, s, "agent_same")
	see("agent", a, err)
	versions, err := db.AgentVersions(ctx, s, "agent_same")
	see("versions", versions, err)
	for _, p := range []openai.Page{all, {Limit: 10, Desc: true}, {Limit: 10, After: "context_same"}} {
		contexts, _, err := db.Contexts(ctx, s, p)
		see("contexts", contexts, err)
	}
	c, err := db.Context(ctx, s, "context_same")
	see("context", c, err)
	words, err := db.Segment(ctx, s, "vs_same", "file-same", 1)
	see("words", string(words), err)
	tracked, err := db.FileTracked(ctx, s, "vs_same", "file-same")
	see("tracked", tracked, err)
}

// testSeparateAgents makes every change of agents in acme, where f compares what
// beta sees.
func testSeparateAgents(t *testing.T, w *world, acme tenant.Scope, f func(what string, err error)) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	a, err := db.Agent(ctx, acme, "agent_same")
	must(t, err)
	a.Instructions = "acme instructions"
	for range 2 {
		a, err = db.UpdateAgent(ctx, acme, a)
		f("UpdateAgent", err)
	}
	f("CreateAgent", db.CreateAgent(ctx, acme, agent("agent_new", "new", "", "acme new", epoch), 3)) // its own are counted
	f("SetDefaultAgent", db.SetDefaultAgent(ctx, acme, "proj_same", "agent_new"))
	f("DeleteAgent that is a default", db.DeleteAgent(ctx, acme, "agent_new"))
	f("SetEmbeddingModel", db.SetEmbeddingModel(ctx, acme, "acme/other"))
	_, err = db.UpdateContext(ctx, acme, "context_same", "rules", "acme rules")
	f("UpdateContext", err)
	f("CreateContext", db.CreateContext(ctx, acme, contextOf("context_new", "voice", "acme voice", epoch)))
	f("DeleteContext", db.DeleteContext(ctx, acme, "context_same"))
	f("PutSegment", db.PutSegment(ctx, acme, "vs_same", "file-same", 2, []byte("acme segment")))
	f("DeleteAgent", db.DeleteAgent(ctx, acme, "agent_same"))
}

// testForeignAgents asks for what only the other company has.
func testForeignAgents(w *world, acme tenant.Scope, f func(what string, err error, more ...error)) {
	ctx, db := w.ctx(), w.db
	for _, id := range []string{"agent_beta", "agent_nobody", "", "agent_same\x00", "AGENT_SAME", "agent_%"} {
		_, err := db.Agent(ctx, acme, id)
		_, versions := db.AgentVersions(ctx, acme, id)
		_, updated := db.UpdateAgent(ctx, acme, agent(id, "other", "", "x", epoch))
		f("agent "+id, err, versions, updated, db.DeleteAgent(ctx, acme, id))
	}
	if tracked, err := db.FileTracked(ctx, acme, "vs_of_beta", "file-two"); tracked || err != nil {
		f("FileTracked", fmt.Errorf("tracked %t, %w", tracked, err))
	}
	for _, id := range []string{"context_beta", "context_nobody", "", "context_same\x00"} {
		_, err := db.Context(ctx, acme, id)
		_, updated := db.UpdateContext(ctx, acme, id, "rules", "x")
		f("context "+id, err, updated, db.DeleteContext(ctx, acme, id))
	}
}

// Agents tests what is particular about agents and contexts.
func testAgents(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	ctx, db := w.ctx(), w.db
	must(t, db.CreateProject(ctx, s, tenant.Project{ID: "proj_other", Name: "other", CreatedAt: epoch}))

	must(t, db.CreateAgent(ctx, s, agent("agent_1", "one", "", "one", epoch), 2))
	if err := db.CreateAgent(ctx, s, agent("agent_2", "one", "", "two", epoch), 2); !fault.Is(err, fault.Conflict) {
		t.Errorf("a slug twice: %v", err)
	}
	must(t, db.CreateAgent(ctx, s, agent("agent_2", "two", "", "two", epoch), 2))
	if err := db.CreateAgent(ctx, s, agent("agent_3", "three", "", "three", epoch), 2); !fault.Is(err, fault.Invalid) {
		t.Errorf("one too many: %v", err)
	}
	// Two who change the same version: one of them is told.
	a, err := db.Agent(ctx, s, "agent_1")
	must(t, err)
	a.Instructions = "first"
	first, err := db.UpdateAgent(ctx, s, a)
	must(t, err)
	if first.Version != 2 || first.Instructions != "first" {
		t.Errorf("changed to %+v", first)
	}
	if _, err := db.UpdateAgent(ctx, s, a); !fault.Is(err, fault.Conflict) {
		t.Errorf("an older version is changed: %v", err)
	}
	versions, err := db.AgentVersions(ctx, s, "agent_1")
	must(t, err)
	if len(versions) != 2 || versions[0].Version != 2 || versions[1].Instructions != "one instructions" {
		t.Errorf("versions %+v", versions)
	}
	// A default that is deleted is none.
	must(t, db.SetDefaultAgent(ctx, s, "proj_other", "agent_1"))
	must(t, db.DeleteAgent(ctx, s, "agent_1"))
	p, err := db.Project(ctx, s, "proj_other")
	must(t, err)
	same(t, p.DefaultAgent, "")
	if err := db.SetDefaultAgent(ctx, s, "proj_other", "agent_1"); !fault.Is(err, fault.Invalid) {
		t.Errorf("an agent that is gone is made the default: %v", err)
	}

	// Contexts have a bound together, and go together in one order.
	must(t, db.CreateContext(ctx, s, contextOf("context_1", "rules", "Be kind.", epoch)))
	must(t, db.CreateContext(ctx, s, contextOf("context_2", "identity", "We are Acme.", epoch.Add(time.Second))))
	must(t, db.CreateContext(ctx, s, contextOf("context_3", "rules", "Be brief.", epoch.Add(2*time.Second))))
	c := tenant.Company{}
	must(t, db.LoadCompany(ctx, s.ID(), &c))
	same(t, c.Contexts, "# Identity\nWe are Acme.\n\n# Rules\nBe kind.\n\nBe brief.")
	if c.Agents["two"] == nil || len(c.Agents) != 1 || c.Agents["two"].Knowledge.TopK != 3 {
		t.Errorf("loaded %+v", c.Agents)
	}
	if err := db.CreateContext(ctx, s, contextOf("context_long", "voice", strings.Repeat("x", tenant.MaxContextBytes), epoch)); !fault.Is(err, fault.Invalid) {
		t.Errorf("too much text: %v", err)
	}
	for i := range tenant.MaxContexts - 3 {
		must(t, db.CreateContext(ctx, s, contextOf(fmt.Sprint("context_more_", i), "voice", "x", epoch)))
	}
	if err := db.CreateContext(ctx, s, contextOf("context_last", "voice", "x", epoch)); !fault.Is(err, fault.Invalid) {
		t.Errorf("one too many: %v", err)
	}

	// Words go with their file, and an older version takes no newer one's place.
	furnishSegment(t, w, s)
	must(t, db.PutSegment(ctx, s, "vs_1", "file-1", 5, []byte("new")))
	must(t, db.PutSegment(ctx, s, "vs_1", "file-1", 4, []byte("old")))
	must(t, db.PutSegment(ctx, s, "vs_1", "file-none", 1, []byte("nowhere")))
	for version, want := range map[int64]string{4: "", 5: "new"} {
		got, err := db.Segment(ctx, s, "vs_1", "file-1", version)
		must(t, err)
		same(t, string(got), want)
	}
	must(t, db.DetachFile(ctx, s, "vs_1", "file-1"))
	got, err := db.Segment(ctx, s, "vs_1", "file-1", 5)
	must(t, err)
	same(t, string(got), "")
	// It is known until it is gone from the index too.
	for file, want := range map[string]bool{"file-1": true, "file-none": false} {
		tracked, err := db.FileTracked(ctx, s, "vs_1", file)
		must(t, err)
		same(t, tracked, want)
	}
}

func furnishSegment(t *testing.T, w *world, s tenant.Scope) {
	t.Helper()
	f := rag.File{ID: "file-1", Name: "one", Purpose: rag.ForAssistants, Type: "text/plain", CreatedAt: epoch}
	must(t, w.db.BeginFile(w.ctx(), s, f, quota))
	must(t, w.db.FinishFile(w.ctx(), s, f, quota))
	must(t, w.db.CreateVectorStore(w.ctx(), s, rag.Store{ID: "vs_1", Name: "one", CreatedAt: epoch}, []rag.StoreFile{{StoreID: "vs_1", FileID: "file-1", CreatedAt: epoch}}, quota))
}
