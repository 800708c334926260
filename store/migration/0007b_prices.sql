-- Overrides of list prices, in the form of ledger.PriceRow: a company's, and the
-- operator's, which hold for all.
CREATE TABLE price (
  company_id TEXT   NOT NULL REFERENCES company (company_id),
  provider   TEXT   NOT NULL,
  model      TEXT   NOT NULL,
  spec       TEXT   NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (company_id, provider, model)
);
CREATE TABLE operator_price (
  provider   TEXT   NOT NULL,
  model      TEXT   NOT NULL,
  spec       TEXT   NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (provider, model)
);

-- See tenant.Allowance.
ALTER TABLE company ADD COLUMN degraded_nano BIGINT NOT NULL DEFAULT 0;
ALTER TABLE company ADD COLUMN degraded_requests BIGINT NOT NULL DEFAULT 0;
