package web

import (
	"context"
	"sync"
	"time"

	"bulkhead/fault"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// The operator's knowledge is what a company of the operator's own has shared: it
// is filled with the SDK and a key of that company, like any other, and read for
// all companies where their own knowledge falls short. Nobody else can change it,
// and what is asked is not kept with it.
//
// It is searched with keywords, and with vectors where the company that asks uses
// the same embedder: a question goes to no embedder but the asking company's.

// masterAge is how old what is known of which company that is may be.
const masterAge = 5 * time.Second

// master remembers which company has the operator's knowledge.
type master struct {
	mu      sync.Mutex
	company string
	asked   time.Time
}

// masterCompany returns the company, "" if there is none.
func (g *Gateway) masterCompany(ctx context.Context) (string, error) {
	if g.Agents == nil {
		return "", nil
	}
	g.master.mu.Lock()
	defer g.master.mu.Unlock()
	if now := g.now(); now.Sub(g.master.asked) > masterAge {
		company, err := g.Agents.MasterKnowledge(ctx)
		if err != nil {
			return "", err
		}
		g.master.company, g.master.asked = company, now
	}
	return g.master.company, nil
}

// MasterKnowledge is the kind of Background for which the operator's company is
// opened.
const masterKnowledge = "master_knowledge"

// addMaster adds passages of the operator's knowledge to what was found of the
// company's own.
func (g *Gateway) addMaster(ctx context.Context, s tenant.Scope, found rag.Found, q rag.Query) (rag.Found, error) {
	company, err := g.masterCompany(ctx)
	if err != nil || company == "" || company == s.ID().String() {
		return found, err
	}
	m, err := g.Tenants.Background(ctx, tenant.Upkeep{Company: company, Kind: masterKnowledge})
	if fault.Is(err, fault.NotFound) || err == nil && m.Company().Status != tenant.Active {
		return found, nil // it was erased or suspended: there is no such knowledge
	}
	if err != nil {
		return found, err
	}
	q.Filter = nil // categories are the company's own
	more, err := g.Retriever.Master(ctx, m, s, q)
	found.Passages = append(found.Passages, more.Passages...)
	if found.Missing == nil {
		found.Missing = more.Missing
	}
	return found, err
}

// masterObject says which company has the operator's knowledge.
type masterObject struct {
	Object  string  `json:"object"`
	Company *string `json:"company"`
}

func (g *Gateway) getMasterKnowledge(r *request) (any, error) {
	if _, err := r.operator.Begin(r.ctx, "knowledge.get", ""); err != nil {
		return nil, err
	}
	company, err := g.Agents.MasterKnowledge(r.ctx)
	return masterObject{"knowledge", optional(company)}, err
}

func (g *Gateway) putMasterKnowledge(r *request) (any, error) {
	var b struct {
		Company *string `json:"company"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if b.Company == nil || *b.Company == "" {
		return nil, fault.Field("company", "company is required: the id of the company whose shared vector stores are read for all.")
	}
	act, _, err := r.beginFor("knowledge.put", *b.Company)
	if err != nil {
		return nil, err
	}
	if _, err := g.Registry.Company(r.ctx, act, *b.Company); err != nil {
		return nil, err
	}
	return masterObject{"knowledge", b.Company}, g.setMaster(r, act, *b.Company)
}

func (g *Gateway) deleteMasterKnowledge(r *request) (any, error) {
	act, err := r.operator.Begin(r.ctx, "knowledge.delete", "")
	if err != nil {
		return nil, err
	}
	return masterObject{"knowledge", nil}, g.setMaster(r, act, "")
}

func (g *Gateway) setMaster(r *request, act tenant.Act, company string) error {
	err := g.Agents.SetMasterKnowledge(r.ctx, act, company)
	g.master.mu.Lock()
	defer g.master.mu.Unlock()
	g.master.asked = time.Time{}
	return err
}
