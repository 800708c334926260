-- A company's agents: see tenant.Agent. definition is JSON. A project_id of '' is
-- the company as a whole.
CREATE TABLE agent (
  company_id TEXT    NOT NULL REFERENCES company (company_id),
  id         TEXT    NOT NULL,
  project_id TEXT    NOT NULL,
  created_by TEXT    NOT NULL,
  slug       TEXT    NOT NULL,
  shared     BOOLEAN NOT NULL,
  version    BIGINT  NOT NULL,
  definition TEXT    NOT NULL,
  created_at BIGINT  NOT NULL,
  updated_at BIGINT  NOT NULL,
  PRIMARY KEY (company_id, id),
  UNIQUE (company_id, slug)
);
CREATE INDEX agent_created ON agent (company_id, created_at, id);

-- What each version of an agent was.
CREATE TABLE agent_version (
  company_id TEXT   NOT NULL,
  agent_id   TEXT   NOT NULL,
  version    BIGINT NOT NULL,
  created_by TEXT   NOT NULL,
  definition TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (company_id, agent_id, version),
  FOREIGN KEY (company_id, agent_id) REFERENCES agent (company_id, id)
);

-- What a company tells its agents of itself.
CREATE TABLE context (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  id         TEXT   NOT NULL,
  created_by TEXT   NOT NULL,
  kind       TEXT   NOT NULL CHECK (kind IN ('identity', 'voice', 'rules', 'instructions')),
  text       TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (company_id, id)
);
CREATE INDEX context_created ON context (company_id, created_at, id);

-- The words of the files of vector stores, for keyword search: see rag.EncodeSegment.
CREATE TABLE keyword_segment (
  company_id TEXT   NOT NULL,
  store_id   TEXT   NOT NULL,
  file_id    TEXT   NOT NULL,
  version    BIGINT NOT NULL,
  words      BYTEA  NOT NULL,
  PRIMARY KEY (company_id, store_id, file_id),
  FOREIGN KEY (company_id, store_id, file_id) REFERENCES store_file (company_id, store_id, file_id) ON DELETE CASCADE
);

-- The agent of calls in a project that name a model, '' for none; and the model
-- that makes the company's vectors, '' for the gateway's own.
ALTER TABLE project ADD COLUMN default_agent TEXT NOT NULL DEFAULT '';
ALTER TABLE company ADD COLUMN embedding_model TEXT NOT NULL DEFAULT '';
