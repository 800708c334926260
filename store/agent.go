package store

import (
	"context"
	"slices"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

const (
	agentRows = `SELECT id, project_id, created_by, slug, shared, version, definition, created_at, updated_at FROM agent WHERE company_id = $1`
	agentSeen = ` AND (shared OR project_id = '' OR project_id = $7 OR $7 = '')`
)

var (
	agentList = list[statement]{
		statement{"agents_cursor", `SELECT created_at FROM agent WHERE company_id = $1 AND id = $2
			AND (shared OR project_id = '' OR project_id = $3 OR $3 = '')`},
		statement{"agents_ascending", agentRows + between + agentSeen + oldToNew},
		statement{"agents_descending", agentRows + between + agentSeen + newToOld},
	}
	agentsLoaded = statement{"agents_loaded", agentRows + ` ORDER BY created_at, id`}
	agentOne     = statement{"agent_one", agentRows + ` AND id = $2 AND (shared OR project_id = '' OR project_id = $3 OR $3 = '')`}
	agentsHeld   = statement{"agents_held", `SELECT count(*) FROM agent WHERE company_id = $1`}

	agentInserted = statement{"agent_inserted",
		`INSERT INTO agent (company_id, id, project_id, created_by, slug, shared, version, definition, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8, $8)`}
	// Only the project whose agent it is changes it, or an admin key.
	agentUpdated = statement{"agent_updated",
		`UPDATE agent SET slug = $4, shared = $5, version = version + 1, definition = $6, updated_at = $7
		WHERE company_id = $1 AND id = $2 AND (project_id = $3 OR $3 = '') AND version = $8`}
	agentDeleted = statement{"agent_deleted", `DELETE FROM agent WHERE company_id = $1 AND id = $2 AND (project_id = $3 OR $3 = '')`}
	agentOwned   = statement{"agent_owned", `SELECT count(*) FROM agent WHERE company_id = $1 AND id = $2 AND (project_id = $3 OR $3 = '')`}
	agentLeft    = statement{"agent_left", `UPDATE project SET default_agent = '' WHERE company_id = $1 AND default_agent = $2`}

	agentVersionInserted = statement{"agent_version_inserted",
		`INSERT INTO agent_version (company_id, agent_id, version, created_by, definition, created_at) VALUES ($1, $2, $3, $4, $5, $6)`}
	agentVersionsOf = statement{"agent_versions_of",
		`SELECT version, created_by, definition, created_at FROM agent_version WHERE company_id = $1 AND agent_id = $2 ORDER BY version DESC`}
	agentVersionsOld = statement{"agent_versions_old",
		`DELETE FROM agent_version WHERE company_id = $1 AND agent_id = $2 AND version <= $3`}

	embeddingModelSet = statement{"embedding_model_set", `UPDATE company SET embedding_model = $2 WHERE company_id = $1`}
)

// maxAgentVersions is how many versions of an agent are kept.
const maxAgentVersions = 100

func scanAgent(r row) (a tenant.Agent, err error) {
	err = r.Scan(&a.ID, &a.ProjectID, &a.CreatedBy, &a.Slug, &a.Shared, &a.Version, object{&a.AgentDefinition}, moment{&a.CreatedAt}, moment{&a.UpdatedAt})
	return a, err
}

// agents returns the company's agents by slug, and what they are told of it.
func (t *tx) agents() (agents map[string]*tenant.Agent, contexts string, err error) {
	err = t.query(agentsLoaded, func(r row) error {
		a, err := scanAgent(r)
		if agents == nil {
			agents = map[string]*tenant.Agent{}
		}
		agents[a.Slug] = &a
		return err
	})
	if err != nil {
		return nil, "", err
	}
	all, err := t.contexts()
	return agents, tenant.JoinContexts(all), err
}

func (t *tx) agent(id, project string) (a tenant.Agent, err error) {
	found := false
	err = t.query(agentOne, func(r row) error { found = true; a, err = scanAgent(r); return err }, storable(id), project)
	if err == nil && !found {
		err = errNoRow
	}
	return a, err
}

// Agents implements web.Knowledge.
func (db *DB) Agents(ctx context.Context, s tenant.Scope, p openai.Page) (all []tenant.Agent, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, more, err = readPage(t, agentList, p, scanAgent, []any{s.ProjectID()}, nil)
		return err
	})
	return all, more, err
}

// Agent implements web.Knowledge.
func (db *DB) Agent(ctx context.Context, s tenant.Scope, id string) (a tenant.Agent, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		a, err = t.agent(id, s.ProjectID())
		return err
	})
	return a, err
}

// AgentVersions implements web.Knowledge.
func (db *DB) AgentVersions(ctx context.Context, s tenant.Scope, id string) (all []tenant.AgentVersion, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if _, err := t.agent(id, s.ProjectID()); err != nil {
			return err
		}
		return t.query(agentVersionsOf, func(r row) error {
			var v tenant.AgentVersion
			err := r.Scan(&v.Version, &v.CreatedBy, object{&v.AgentDefinition}, moment{&v.CreatedAt})
			all = append(all, v)
			return err
		}, storable(id))
	})
	return all, err
}

// CreateAgent implements web.Knowledge.
func (db *DB) CreateAgent(ctx context.Context, s tenant.Scope, a tenant.Agent, most int64) error {
	return db.change(ctx, s, func(t *tx) error {
		var n int64
		if err := t.one(agentsHeld, []any{&n}); err != nil {
			return err
		}
		if n >= most {
			return fault.New(fault.Invalid, "Your company has %d agents, which is as many as it may have. Delete some.", n).WithCode("agents_exceeded")
		}
		definition := asJSON(a.AgentDefinition)
		if _, err := t.exec(agentInserted, a.ID, a.ProjectID, a.CreatedBy, a.Slug, a.Shared, definition, micros(a.CreatedAt)); err != nil {
			return conflict(err)
		}
		if _, err := t.exec(agentVersionInserted, a.ID, 1, a.CreatedBy, definition, micros(a.CreatedAt)); err != nil {
			return err
		}
		return t.audit(audit.AgentCreated, a.ProjectID, a.ID)
	})
}

// UpdateAgent implements web.Knowledge.
func (db *DB) UpdateAgent(ctx context.Context, s tenant.Scope, a tenant.Agent) (updated tenant.Agent, err error) {
	err = db.change(ctx, s, func(t *tx) error {
		if err := t.ownAgent(a.ID, s.ProjectID()); err != nil {
			return err
		}
		definition := asJSON(a.AgentDefinition)
		n, err := t.exec(agentUpdated, storable(a.ID), s.ProjectID(), a.Slug, a.Shared, definition, micros(t.now), a.Version)
		if err != nil {
			return conflict(err)
		}
		if n == 0 {
			return fault.New(fault.Conflict, "Somebody else changed this agent at the same time. Try again.")
		}
		if _, err := t.exec(agentVersionInserted, a.ID, a.Version+1, s.KeyID(), definition, micros(t.now)); err != nil {
			return err
		}
		if _, err := t.exec(agentVersionsOld, a.ID, a.Version+1-maxAgentVersions); err != nil {
			return err
		}
		if updated, err = t.agent(a.ID, s.ProjectID()); err != nil {
			return err
		}
		return t.audit(audit.AgentUpdated, updated.ProjectID, a.ID)
	})
	return updated, err
}

// ownAgent returns errNoRow unless the project may change the agent.
func (t *tx) ownAgent(id, project string) error {
	var n int64
	if err := t.one(agentOwned, []any{&n}, storable(id), project); err != nil {
		return err
	}
	return must(n, nil)
}

// DeleteAgent implements web.Knowledge.
func (db *DB) DeleteAgent(ctx context.Context, s tenant.Scope, id string) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := t.ownAgent(id, s.ProjectID()); err != nil {
			return err
		}
		if _, err := t.exec(agentLeft, id); err != nil {
			return err
		}
		if _, err := t.exec(agentVersionsOld, id, int64(1)<<62); err != nil {
			return err
		}
		if err := must(t.exec(agentDeleted, id, s.ProjectID())); err != nil {
			return err
		}
		return t.audit(audit.AgentDeleted, s.ProjectID(), id)
	})
}

// SetDefaultAgent implements web.Knowledge.
func (db *DB) SetDefaultAgent(ctx context.Context, s tenant.Scope, project, agent string) error {
	return db.change(ctx, s, func(t *tx) error {
		if agent != "" {
			a, err := t.agent(agent, project)
			if err != nil {
				return fault.Field("agent", "No such agent, or the project does not see it.")
			}
			agent = a.ID
		}
		if err := must(t.exec(defaultAgentSet, storable(project), agent)); err != nil {
			return err
		}
		return t.audit(audit.DefaultAgentUpdated, project, project)
	})
}

// SetEmbeddingModel implements web.Knowledge.
func (db *DB) SetEmbeddingModel(ctx context.Context, s tenant.Scope, model string) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(embeddingModelSet, model)); err != nil {
			return err
		}
		if err := t.askUpkeep(tenant.Ingest, t.now); err != nil { // the vectors there are, are made anew
			return err
		}
		return t.audit(audit.EmbeddingModelUpdated, "", t.company)
	})
}

const contextRows = `SELECT id, created_by, kind, text, created_at, updated_at FROM context WHERE company_id = $1`

var (
	contextList = list[statement]{
		statement{"contexts_cursor", `SELECT created_at FROM context WHERE company_id = $1 AND id = $2`},
		statement{"contexts_ascending", contextRows + between + oldToNew},
		statement{"contexts_descending", contextRows + between + newToOld},
	}
	contextsLoaded  = statement{"contexts_loaded", contextRows + ` ORDER BY created_at, id`}
	contextOne      = statement{"context_one", contextRows + ` AND id = $2`}
	contextInserted = statement{"context_inserted",
		`INSERT INTO context (company_id, id, created_by, kind, text, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6)`}
	contextUpdated = statement{"context_updated",
		`UPDATE context SET kind = $3, text = $4, updated_at = $5 WHERE company_id = $1 AND id = $2`}
	contextDeleted = statement{"context_deleted", `DELETE FROM context WHERE company_id = $1 AND id = $2`}
)

func scanContext(r row) (c tenant.Context, err error) {
	err = r.Scan(&c.ID, &c.CreatedBy, &c.Kind, &c.Text, moment{&c.CreatedAt}, moment{&c.UpdatedAt})
	return c, err
}

func (t *tx) contexts() (all []tenant.Context, err error) {
	err = t.query(contextsLoaded, func(r row) error {
		c, err := scanContext(r)
		all = append(all, c)
		return err
	})
	return all, err
}

func (t *tx) context(id string) (c tenant.Context, err error) {
	found := false
	err = t.query(contextOne, func(r row) error { found = true; c, err = scanContext(r); return err }, storable(id))
	if err == nil && !found {
		err = errNoRow
	}
	return c, err
}

// fits refuses contexts that are too many or too long together.
func (t *tx) fits() error {
	all, err := t.contexts()
	if err != nil {
		return err
	}
	switch {
	case len(all) > tenant.MaxContexts:
		return fault.New(fault.Invalid, "A company has at most %d contexts.", tenant.MaxContexts).WithCode("contexts_exceeded")
	case len(tenant.JoinContexts(all)) > tenant.MaxContextBytes:
		return fault.Field("text", "All contexts of a company together have at most %d bytes: every call of an agent is sent with them.", tenant.MaxContextBytes)
	}
	return nil
}

// Contexts implements web.Knowledge.
func (db *DB) Contexts(ctx context.Context, s tenant.Scope, p openai.Page) (all []tenant.Context, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, more, err = readPage(t, contextList, p, scanContext, nil, nil)
		return err
	})
	return all, more, err
}

// Context implements web.Knowledge.
func (db *DB) Context(ctx context.Context, s tenant.Scope, id string) (c tenant.Context, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		c, err = t.context(id)
		return err
	})
	return c, err
}

// CreateContext implements web.Knowledge.
func (db *DB) CreateContext(ctx context.Context, s tenant.Scope, c tenant.Context) error {
	if !slices.Contains(tenant.ContextKinds[:], c.Kind) {
		panic("BUG: a context of the kind " + c.Kind)
	}
	return db.change(ctx, s, func(t *tx) error {
		if _, err := t.exec(contextInserted, c.ID, c.CreatedBy, c.Kind, c.Text, micros(c.CreatedAt)); err != nil {
			return conflict(err)
		}
		if err := t.fits(); err != nil {
			return err
		}
		return t.audit(audit.ContextCreated, "", c.ID)
	})
}

// UpdateContext implements web.Knowledge.
func (db *DB) UpdateContext(ctx context.Context, s tenant.Scope, id, kind, text string) (c tenant.Context, err error) {
	err = db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(contextUpdated, storable(id), kind, text, micros(t.now))); err != nil {
			return err
		}
		if err := t.fits(); err != nil {
			return err
		}
		if c, err = t.context(id); err != nil {
			return err
		}
		return t.audit(audit.ContextUpdated, "", id)
	})
	return c, err
}

// DeleteContext implements web.Knowledge.
func (db *DB) DeleteContext(ctx context.Context, s tenant.Scope, id string) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(contextDeleted, storable(id))); err != nil {
			return err
		}
		return t.audit(audit.ContextDeleted, "", id)
	})
}
