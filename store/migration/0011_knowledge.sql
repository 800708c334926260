-- What companies know: see package rag. A project_id of '' is the company as a
-- whole; content refers to no project, which may be archived.

-- A document as it was uploaded. Its bytes are in a blob of the same id, which is
-- there before the status is 'ready'.
CREATE TABLE file (
  company_id TEXT    NOT NULL REFERENCES company (company_id),
  id         TEXT    NOT NULL,
  project_id TEXT    NOT NULL,
  created_by TEXT    NOT NULL,
  name       TEXT    NOT NULL,
  purpose    TEXT    NOT NULL,
  type       TEXT    NOT NULL,
  bytes      BIGINT  NOT NULL,
  shared     BOOLEAN NOT NULL,
  status     TEXT    NOT NULL CHECK (status IN ('uploading', 'ready')),
  created_at BIGINT  NOT NULL,
  expires_at BIGINT  NOT NULL,
  PRIMARY KEY (company_id, id)
);
CREATE INDEX file_created ON file (company_id, created_at, id);

CREATE TABLE vector_store (
  company_id   TEXT    NOT NULL REFERENCES company (company_id),
  id           TEXT    NOT NULL,
  project_id   TEXT    NOT NULL,
  created_by   TEXT    NOT NULL,
  name         TEXT    NOT NULL,
  description  TEXT    NOT NULL,
  shared       BOOLEAN NOT NULL,
  metadata     TEXT    NOT NULL,
  expires_days BIGINT  NOT NULL,
  created_at   BIGINT  NOT NULL,
  active_at    BIGINT  NOT NULL,
  expires_at   BIGINT  NOT NULL,
  expired      BOOLEAN NOT NULL DEFAULT FALSE,
  embedder     TEXT    NOT NULL DEFAULT '',
  dimension    BIGINT  NOT NULL DEFAULT 0,
  version      BIGINT  NOT NULL DEFAULT 0,
  visible_ts   BIGINT  NOT NULL DEFAULT 0,
  PRIMARY KEY (company_id, id)
);
CREATE INDEX vector_store_created ON vector_store (company_id, created_at, id);

CREATE TABLE file_batch (
  company_id TEXT    NOT NULL,
  store_id   TEXT    NOT NULL,
  id         TEXT    NOT NULL,
  created_at BIGINT  NOT NULL,
  cancelled  BOOLEAN NOT NULL DEFAULT FALSE,
  PRIMARY KEY (company_id, store_id, id),
  FOREIGN KEY (company_id, store_id) REFERENCES vector_store (company_id, id)
);

-- A file in a vector store, and the work that is to be done for it: it is due at
-- next_at (0: there is none), and whoever does it has moved that on and put in a
-- claim of its own.
CREATE TABLE store_file (
  company_id TEXT    NOT NULL,
  store_id   TEXT    NOT NULL,
  file_id    TEXT    NOT NULL,
  batch_id   TEXT    NOT NULL,
  attributes TEXT    NOT NULL,
  chunking   TEXT    NOT NULL,
  status     TEXT    NOT NULL CHECK (status IN ('in_progress', 'completed', 'failed', 'cancelled')),
  error_code TEXT    NOT NULL DEFAULT '',
  error      TEXT    NOT NULL DEFAULT '',
  bytes      BIGINT  NOT NULL DEFAULT 0,
  chunks     BIGINT  NOT NULL DEFAULT 0,
  version    BIGINT  NOT NULL DEFAULT 0,
  created_at BIGINT  NOT NULL,
  next_at    BIGINT  NOT NULL,
  tries      BIGINT  NOT NULL DEFAULT 0,
  claim      TEXT    NOT NULL DEFAULT '',
  PRIMARY KEY (company_id, store_id, file_id),
  FOREIGN KEY (company_id, store_id) REFERENCES vector_store (company_id, id),
  FOREIGN KEY (company_id, file_id) REFERENCES file (company_id, id)
);
CREATE INDEX store_file_created ON store_file (company_id, store_id, created_at, file_id);
CREATE INDEX store_file_due ON store_file (company_id, next_at);
CREATE INDEX store_file_of ON store_file (company_id, file_id);

-- The vector is little-endian float32.
CREATE TABLE chunk (
  company_id TEXT   NOT NULL,
  store_id   TEXT   NOT NULL,
  file_id    TEXT   NOT NULL,
  place      BIGINT NOT NULL,
  text       TEXT   NOT NULL,
  embedder   TEXT   NOT NULL,
  vector     BYTEA  NOT NULL,
  PRIMARY KEY (company_id, store_id, file_id, place),
  FOREIGN KEY (company_id, store_id, file_id) REFERENCES store_file (company_id, store_id, file_id)
);

-- What is deleted here and still has to go from the index (of a store, or of a file
-- in one) or from the blobs (of a file, store_id ''). Until it has, no work begins
-- on a file of the same name.
CREATE TABLE discard (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  store_id   TEXT   NOT NULL,
  file_id    TEXT   NOT NULL,
  next_at    BIGINT NOT NULL,
  tries      BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (company_id, store_id, file_id)
);
CREATE INDEX discard_due ON discard (company_id, next_at);
