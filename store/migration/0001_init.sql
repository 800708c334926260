-- What SQLite and Postgres share. What only one of them has is in its folder.
--
-- Every table of a company has company_id first in every key and index, and
-- refers to others by (company_id, id): no row can point across.

CREATE TABLE company (
  company_id  TEXT   NOT NULL PRIMARY KEY,
  name        TEXT   NOT NULL,
  status      TEXT   NOT NULL CHECK (status IN ('active', 'suspended', 'erasing', 'erased')),
  limits      TEXT   NOT NULL,
  generation  BIGINT NOT NULL,
  created_at  BIGINT NOT NULL,
  erased_at   BIGINT NOT NULL DEFAULT 0,
  erased_rows TEXT   NOT NULL DEFAULT '{}'
);

CREATE TABLE project (
  company_id        TEXT   NOT NULL REFERENCES company (company_id),
  id                TEXT   NOT NULL,
  name              TEXT   NOT NULL,
  created_at        BIGINT NOT NULL,
  archived_at       BIGINT NOT NULL DEFAULT 0,
  limits            TEXT   NOT NULL,
  permission_mode   TEXT   NOT NULL CHECK (permission_mode IN ('', 'allow_list', 'deny_list')),
  permission_models TEXT   NOT NULL,
  PRIMARY KEY (company_id, id)
);

CREATE TABLE model_limit (
  company_id TEXT NOT NULL,
  project_id TEXT NOT NULL,
  model      TEXT NOT NULL,
  limits     TEXT NOT NULL,
  PRIMARY KEY (company_id, project_id, model),
  FOREIGN KEY (company_id, project_id) REFERENCES project (company_id, id)
);

CREATE TABLE service_account (
  company_id TEXT   NOT NULL,
  id         TEXT   NOT NULL,
  project_id TEXT   NOT NULL,
  name       TEXT   NOT NULL,
  role       TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  deleted_at BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (company_id, id),
  FOREIGN KEY (company_id, project_id) REFERENCES project (company_id, id)
);

CREATE TABLE api_key (
  company_id         TEXT   NOT NULL REFERENCES company (company_id),
  id                 TEXT   NOT NULL,
  kind               TEXT   NOT NULL CHECK (kind IN ('live', 'test', 'admin')),
  project_id         TEXT,
  service_account_id TEXT,
  name               TEXT   NOT NULL,
  redacted           TEXT   NOT NULL,
  hash               BYTEA  NOT NULL CHECK (length(hash) = 32),
  created_at         BIGINT NOT NULL,
  expires_at         BIGINT NOT NULL,
  revoked_at         BIGINT NOT NULL DEFAULT 0,
  limits             TEXT   NOT NULL,
  PRIMARY KEY (company_id, id),
  FOREIGN KEY (company_id, project_id) REFERENCES project (company_id, id),
  FOREIGN KEY (company_id, service_account_id) REFERENCES service_account (company_id, id),
  CHECK ((kind = 'admin') = (project_id IS NULL)),
  CHECK ((kind = 'admin') = (service_account_id IS NULL))
);
CREATE INDEX api_key_project ON api_key (company_id, project_id, created_at, id);
CREATE INDEX api_key_account ON api_key (company_id, service_account_id);

CREATE TABLE route (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  name       TEXT   NOT NULL,
  targets    TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (company_id, name)
);

CREATE TABLE credential (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  id         TEXT   NOT NULL,
  provider   TEXT   NOT NULL,
  version    BIGINT NOT NULL,
  redacted   TEXT   NOT NULL,
  base_url   TEXT   NOT NULL,
  blob       BYTEA  NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (company_id, id),
  UNIQUE (company_id, provider)
);

-- What is noted of credentials that Vault has: no secret, and not its place.
CREATE TABLE credential_name (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  provider   TEXT   NOT NULL,
  id         TEXT   NOT NULL,
  version    BIGINT NOT NULL,
  redacted   TEXT   NOT NULL,
  base_url   TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (company_id, provider)
);

CREATE TABLE data_key (
  company_id TEXT   NOT NULL PRIMARY KEY REFERENCES company (company_id),
  wrapped    BYTEA  NOT NULL,
  created_at BIGINT NOT NULL
);

-- One attempt at one provider. It refers to no project and no key: what was
-- spent is booked also where the object it was spent by has gone.
-- An id begins with the time its attempt began, so the primary key is the order
-- in time. The statement that appends looks the company up: no foreign key does.
CREATE TABLE entry (
  company_id          TEXT    NOT NULL,
  id                  TEXT    NOT NULL,
  request_id          TEXT    NOT NULL,
  project_id          TEXT    NOT NULL,
  key_id              TEXT    NOT NULL,
  kind                TEXT    NOT NULL,
  provider            TEXT    NOT NULL,
  model               TEXT    NOT NULL,
  requested           TEXT    NOT NULL,
  outcome             TEXT    NOT NULL,
  rank                BIGINT  NOT NULL,
  status              BIGINT  NOT NULL,
  input               BIGINT  NOT NULL,
  cached_input        BIGINT  NOT NULL,
  cache_write         BIGINT  NOT NULL,
  audio_input         BIGINT  NOT NULL,
  image_input         BIGINT  NOT NULL,
  output              BIGINT  NOT NULL,
  reasoning           BIGINT  NOT NULL,
  audio_output        BIGINT  NOT NULL,
  image_output        BIGINT  NOT NULL,
  accepted_prediction BIGINT  NOT NULL,
  rejected_prediction BIGINT  NOT NULL,
  total               BIGINT  NOT NULL,
  priced              BOOLEAN NOT NULL,
  cost_nano           BIGINT  NOT NULL,
  started_at          BIGINT  NOT NULL,
  ended_at            BIGINT  NOT NULL,
  PRIMARY KEY (company_id, id)
);

CREATE TABLE audit (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  id         TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  type       TEXT   NOT NULL,
  actor      TEXT   NOT NULL,
  project_id TEXT   NOT NULL,
  object     TEXT   NOT NULL,
  PRIMARY KEY (company_id, id)
);
CREATE INDEX audit_created ON audit (company_id, created_at, id);

-- From here on: no company's content. See store/global.go.

CREATE TABLE change (
  company_id TEXT   NOT NULL PRIMARY KEY,
  generation BIGINT NOT NULL
);
CREATE INDEX change_generation ON change (generation);

CREATE TABLE change_counter (
  id         BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
  generation BIGINT NOT NULL
);
INSERT INTO change_counter (id, generation) VALUES (1, 0);

CREATE TABLE installation (
  name  TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
);

CREATE TABLE operator_key (
  id         TEXT   NOT NULL PRIMARY KEY,
  name       TEXT   NOT NULL,
  redacted   TEXT   NOT NULL,
  hash       BYTEA  NOT NULL CHECK (length(hash) = 32),
  created_at BIGINT NOT NULL
);

CREATE TABLE operator_act (
  id      TEXT   NOT NULL PRIMARY KEY,
  at      BIGINT NOT NULL,
  actor   TEXT   NOT NULL,
  action  TEXT   NOT NULL,
  company TEXT   NOT NULL
);
