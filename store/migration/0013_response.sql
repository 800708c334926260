-- Whose the responses are that a provider keeps: see tenant.Response. tokens is
-- what the next one brings along, 0 where it is not known.
CREATE TABLE response_owner (
  company_id    TEXT   NOT NULL REFERENCES company (company_id),
  id            TEXT   NOT NULL,
  project_id    TEXT   NOT NULL,
  created_by    TEXT   NOT NULL,
  user_id       TEXT   NOT NULL,
  provider      TEXT   NOT NULL,
  credential_id TEXT   NOT NULL,
  model         TEXT   NOT NULL,
  tokens        BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  until         BIGINT NOT NULL,
  PRIMARY KEY (company_id, id)
);
CREATE INDEX response_owner_until ON response_owner (company_id, until);
