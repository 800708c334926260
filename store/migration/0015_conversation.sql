-- What was said: see package memory. user_id is the hash of an end user's name; an
-- agent_id of '' is a bare model. last_seq is the number of the last item there was.
CREATE TABLE conversation (
  company_id TEXT    NOT NULL REFERENCES company (company_id),
  id         TEXT    NOT NULL,
  project_id TEXT    NOT NULL,
  created_by TEXT    NOT NULL,
  agent_id   TEXT    NOT NULL,
  user_id    TEXT    NOT NULL,
  bound      BOOLEAN NOT NULL,
  metadata   TEXT    NOT NULL,
  version    BIGINT  NOT NULL,
  last_seq   BIGINT  NOT NULL,
  items      BIGINT  NOT NULL,
  bytes      BIGINT  NOT NULL,
  created_at BIGINT  NOT NULL,
  active_at  BIGINT  NOT NULL,
  PRIMARY KEY (company_id, id)
);
CREATE INDEX conversation_active ON conversation (company_id, active_at);

-- body is the item as OpenAI's API has it, but for its id.
CREATE TABLE conversation_item (
  company_id      TEXT   NOT NULL,
  conversation_id TEXT   NOT NULL,
  seq             BIGINT NOT NULL,
  id              TEXT   NOT NULL,
  turn            BIGINT NOT NULL,
  body            TEXT   NOT NULL,
  tokens          BIGINT NOT NULL,
  created_at      BIGINT NOT NULL,
  PRIMARY KEY (company_id, conversation_id, seq),
  UNIQUE (company_id, conversation_id, id),
  FOREIGN KEY (company_id, conversation_id) REFERENCES conversation (company_id, id) ON DELETE CASCADE
);

-- For how many days after its last turn a conversation is kept; -1 is as the
-- gateway's configuration says, 0 for ever.
ALTER TABLE company ADD COLUMN memory_days BIGINT NOT NULL DEFAULT -1;
