-- Calls with an Idempotency-Key: see tenant.KeptCall. What was answered is sealed
-- with the company's data key.
CREATE TABLE idempotency (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  claim      TEXT   NOT NULL,
  project_id TEXT   NOT NULL,
  size       BIGINT NOT NULL, -- bytes of sealed
  until      BIGINT NOT NULL,
  request    TEXT   NOT NULL,
  owner      TEXT   NOT NULL,
  state      TEXT   NOT NULL,
  sealed     BYTEA,
  PRIMARY KEY (company_id, claim)
);
CREATE INDEX idempotency_until ON idempotency (company_id, until, size);
