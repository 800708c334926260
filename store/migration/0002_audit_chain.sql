-- Each company's audit rows become a chain; so do the acts of operators. The
-- version before goes on adding rows that have no link: see docs/audit.md.

ALTER TABLE audit ADD COLUMN count BIGINT NOT NULL DEFAULT 1;
ALTER TABLE audit ADD COLUMN detail TEXT NOT NULL DEFAULT '';

-- The place of a row in its chain, and what stands for it and all before it.
CREATE TABLE audit_link (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  seq        BIGINT NOT NULL CHECK (seq > 0),
  id         TEXT   NOT NULL,
  hash       BYTEA  NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (company_id, seq),
  UNIQUE (company_id, id)
);

-- How long each chain is and how it ends, apart from its rows.
CREATE TABLE audit_head (
  company_id TEXT   NOT NULL PRIMARY KEY REFERENCES company (company_id),
  count      BIGINT NOT NULL,
  hash       BYTEA  NOT NULL CHECK (length(hash) = 32),
  seal       BYTEA  NOT NULL CHECK (length(seal) = 32)
);

CREATE TABLE act_link (
  seq  BIGINT NOT NULL PRIMARY KEY CHECK (seq > 0),
  id   TEXT   NOT NULL UNIQUE,
  hash BYTEA  NOT NULL CHECK (length(hash) = 32)
);

CREATE TABLE act_head (
  id    BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
  count BIGINT NOT NULL,
  hash  BYTEA  NOT NULL CHECK (length(hash) = 32),
  seal  BYTEA  NOT NULL CHECK (length(seal) = 32)
);
