-- Credentials that the operator lends: no company's. The secret is sealed under
-- the operator's data key, or in Vault, and then blob is empty.
CREATE TABLE lent_credential (
  provider            TEXT   NOT NULL PRIMARY KEY,
  id                  TEXT   NOT NULL UNIQUE,
  version             BIGINT NOT NULL,
  redacted            TEXT   NOT NULL,
  base_url            TEXT   NOT NULL,
  blob                BYTEA  NOT NULL,
  requests_per_minute BIGINT NOT NULL, -- of the credential at the provider; 0: not known
  tokens_per_minute   BIGINT NOT NULL,
  share               BIGINT NOT NULL, -- of these a company may use, in percent
  for_all             BIGINT NOT NULL, -- 1: every company may use it
  created_at          BIGINT NOT NULL,
  updated_at          BIGINT NOT NULL
);

CREATE TABLE operator_data_key (
  id         BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
  wrapped    BYTEA  NOT NULL,
  created_at BIGINT NOT NULL
);

-- Which company may use which of them. One that is lent anew has another id, so
-- no grant of before counts for it.
CREATE TABLE lent_grant (
  company_id    TEXT   NOT NULL REFERENCES company (company_id),
  credential_id TEXT   NOT NULL,
  created_at    BIGINT NOT NULL,
  PRIMARY KEY (company_id, credential_id)
);
