-- Whose tokens a company trusts; see tenant.IdentityProvider. The issuer and the
-- audience of a token choose one row at most.
CREATE TABLE identity_provider (
  company_id    TEXT    NOT NULL REFERENCES company (company_id),
  id            TEXT    NOT NULL,
  name          TEXT    NOT NULL,
  description   TEXT    NOT NULL,
  issuer        TEXT    NOT NULL,
  audience      TEXT    NOT NULL,
  enabled       BOOLEAN NOT NULL,
  jwks          TEXT    NOT NULL,
  discovery_url TEXT    NOT NULL,
  attributes    TEXT    NOT NULL,
  created_at    BIGINT  NOT NULL,
  updated_at    BIGINT  NOT NULL,
  PRIMARY KEY (company_id, id),
  UNIQUE (company_id, issuer, audience)
);

-- What a token that matches may act as; see tenant.FederationRule. scopes is
-- 'null' for all that the account may.
CREATE TABLE federation_rule (
  company_id         TEXT    NOT NULL,
  id                 TEXT    NOT NULL,
  provider_id        TEXT    NOT NULL,
  name               TEXT    NOT NULL,
  description        TEXT    NOT NULL,
  matchers           TEXT    NOT NULL,
  project_id         TEXT    NOT NULL,
  service_account_id TEXT    NOT NULL,
  scopes             TEXT    NOT NULL,
  enabled            BOOLEAN NOT NULL,
  created_at         BIGINT  NOT NULL,
  updated_at         BIGINT  NOT NULL,
  PRIMARY KEY (company_id, id),
  FOREIGN KEY (company_id, provider_id) REFERENCES identity_provider (company_id, id),
  FOREIGN KEY (company_id, project_id) REFERENCES project (company_id, id),
  FOREIGN KEY (company_id, service_account_id) REFERENCES service_account (company_id, id)
);
CREATE INDEX federation_rule_provider ON federation_rule (company_id, provider_id, created_at, id);
CREATE INDEX federation_rule_account ON federation_rule (company_id, service_account_id);

-- Audiences that the operator approved for a company beside its own. It is no
-- company's table: an audience chooses the company whose rows may be looked at.
CREATE TABLE approved_audience (
  audience   TEXT   NOT NULL PRIMARY KEY,
  id         TEXT   NOT NULL UNIQUE,
  company_id TEXT   NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE INDEX approved_audience_company ON approved_audience (company_id, created_at, id);
