package web

import (
	"context"
	"strings"

	"bulkhead/openai"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// demoHandbook is what the demo company knows.
const demoHandbook = `# Handbook of the demo company

## Returns

Customers may return any product within 45 days of delivery if it is unused. Refunds are paid within seven days after the goods arrive at the warehouse.

## Shipping

Standard shipping is free for orders above 60 euros. Parcels to Iceland take nine working days because of customs clearance.

## Warranty

The warranty on electronic devices lasts 24 months. It covers manufacturing defects but not water damage.

## Support

Customer support answers the phone from 8 am to 6 pm on weekdays, and by chat around the clock.
`

// DemoAgent is the slug of the demo company's agent.
const DemoAgent = "handbook"

// FurnishDemo gives the demo company a vector store with a handbook in it, and an
// agent that answers from it with the built-in model, so that grounding can be seen
// offline. The handbook is taken in in the background.
func (g *Gateway) FurnishDemo(ctx context.Context, s tenant.Scope) error {
	k, quota, now := g.Knowledge, g.settings.Load().Knowledge.Quota, g.now()
	f := rag.File{ID: openai.NewID("file-"), ProjectID: s.ProjectID(), CreatedBy: s.KeyID(), Name: "handbook.md", Purpose: rag.ForAssistants,
		Type: rag.TypeOf(rag.ForAssistants, "handbook.md", []byte(demoHandbook)), CreatedAt: now}
	if err := k.Files.BeginFile(ctx, s, f, quota); err != nil {
		return err
	}
	var err error
	if f.Bytes, err = k.Blobs.Put(ctx, s, f.ID, strings.NewReader(demoHandbook)); err != nil {
		return err
	}
	if err := k.Files.FinishFile(ctx, s, f, quota); err != nil {
		return err
	}
	store := rag.Store{ID: openai.NewID("vs_"), ProjectID: s.ProjectID(), CreatedBy: s.KeyID(), Name: "handbook", Metadata: map[string]string{}, CreatedAt: now, ActiveAt: now}
	held := rag.StoreFile{StoreID: store.ID, FileID: f.ID, Name: f.Name, Attributes: rag.Attributes{}, Chunking: rag.Chunking{Tokens: 100}, // a passage for each section or two
		CreatedAt: now}
	if err := k.Files.CreateVectorStore(ctx, s, store, []rag.StoreFile{held}, quota); err != nil {
		return err
	}
	return g.Agents.CreateAgent(ctx, s, tenant.Agent{
		ID: openai.NewID("agent_"), ProjectID: s.ProjectID(), CreatedBy: s.KeyID(), Slug: DemoAgent, Version: 1, CreatedAt: now,
		AgentDefinition: tenant.AgentDefinition{Name: "Handbook", Model: "sandbox/grounded", Instructions: "Answer from the handbook only.",
			Knowledge: &tenant.Knowledge{Stores: []string{store.ID}, TopK: defaultTopK, MinScore: g.defaultMinScore(s), MaxTokens: defaultTokens}},
	}, maxAgents)
}
