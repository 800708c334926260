-- A company's people; see tenant.User. password is "" or a hash in PHC form.
CREATE TABLE person (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  id         TEXT   NOT NULL,
  email      TEXT   NOT NULL,
  name       TEXT   NOT NULL,
  password   TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (company_id, id),
  UNIQUE (company_id, email)
);
CREATE INDEX person_created ON person (company_id, created_at, id);

CREATE TABLE invite (
  company_id  TEXT   NOT NULL REFERENCES company (company_id),
  id          TEXT   NOT NULL,
  email       TEXT   NOT NULL,
  role        TEXT   NOT NULL,
  projects    TEXT   NOT NULL,
  hash        BYTEA  NOT NULL CHECK (length(hash) = 32),
  created_at  BIGINT NOT NULL,
  expires_at  BIGINT NOT NULL,
  accepted_at BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (company_id, id)
);
CREATE INDEX invite_created ON invite (company_id, created_at, id);

CREATE TABLE person_group (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  id         TEXT   NOT NULL,
  name       TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (company_id, id)
);

CREATE TABLE group_member (
  company_id TEXT   NOT NULL,
  group_id   TEXT   NOT NULL,
  user_id    TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (company_id, group_id, user_id),
  FOREIGN KEY (company_id, group_id) REFERENCES person_group (company_id, id),
  FOREIGN KEY (company_id, user_id) REFERENCES person (company_id, id)
);
CREATE INDEX group_member_person ON group_member (company_id, user_id);

-- Roles that a company made, of the company ('') or of one project. Permissions
-- are names, in JSON. The built-in roles have no rows.
CREATE TABLE custom_role (
  company_id  TEXT   NOT NULL REFERENCES company (company_id),
  id          TEXT   NOT NULL,
  project_id  TEXT   NOT NULL,
  name        TEXT   NOT NULL,
  description TEXT   NOT NULL,
  permissions TEXT   NOT NULL,
  created_at  BIGINT NOT NULL,
  updated_at  BIGINT NOT NULL,
  created_by  TEXT   NOT NULL,
  PRIMARY KEY (company_id, id),
  UNIQUE (company_id, project_id, name)
);

-- Who has which role, in the company ('') or in a project: principal is the id
-- of a user or of a group. A user or group is in a project if there is a row.
CREATE TABLE role_grant (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  project_id TEXT   NOT NULL,
  principal  TEXT   NOT NULL,
  role_id    TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (company_id, principal, project_id, role_id)
);
CREATE INDEX role_grant_project ON role_grant (company_id, project_id, created_at);
CREATE INDEX role_grant_role ON role_grant (company_id, role_id);

CREATE TABLE session (
  company_id TEXT   NOT NULL,
  id         TEXT   NOT NULL,
  user_id    TEXT   NOT NULL,
  hash       BYTEA  NOT NULL CHECK (length(hash) = 32),
  agent      TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  seen_at    BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (company_id, id),
  FOREIGN KEY (company_id, user_id) REFERENCES person (company_id, id)
);
CREATE INDEX session_person ON session (company_id, user_id, created_at);

-- Whose an admin key is; '' is the company's own.
ALTER TABLE api_key ADD COLUMN user_id TEXT NOT NULL DEFAULT '';
CREATE INDEX api_key_user ON api_key (company_id, user_id);
