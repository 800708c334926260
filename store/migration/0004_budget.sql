-- What a company may use in a calendar period; see tenant.Budget. A budget of
-- kind 'ceiling' is the operator's.
CREATE TABLE budget (
  company_id TEXT    NOT NULL REFERENCES company (company_id),
  id         TEXT    NOT NULL,
  kind       TEXT    NOT NULL,
  owner      TEXT    NOT NULL,
  unit       TEXT    NOT NULL,
  period     TEXT    NOT NULL,
  amount     BIGINT  NOT NULL,
  soft       BOOLEAN NOT NULL,
  created_at BIGINT  NOT NULL,
  PRIMARY KEY (company_id, id),
  UNIQUE (company_id, kind, owner, unit, period)
);

-- The calendar of the company's budgets; see tenant.Calendar. '' is UTC.
ALTER TABLE company ADD COLUMN zone            TEXT   NOT NULL DEFAULT '';
ALTER TABLE company ADD COLUMN zone_before     TEXT   NOT NULL DEFAULT '';
ALTER TABLE company ADD COLUMN zone_changed_at BIGINT NOT NULL DEFAULT 0;
