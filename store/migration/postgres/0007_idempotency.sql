ALTER TABLE idempotency
  ALTER COLUMN company_id TYPE TEXT COLLATE "C", ALTER COLUMN claim TYPE TEXT COLLATE "C", ALTER COLUMN project_id TYPE TEXT COLLATE "C",
  ALTER COLUMN request TYPE TEXT COLLATE "C", ALTER COLUMN owner TYPE TEXT COLLATE "C", ALTER COLUMN state TYPE TEXT COLLATE "C";
ALTER TABLE idempotency ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency FORCE ROW LEVEL SECURITY;
CREATE POLICY idempotency_of_company ON idempotency
  USING (company_id = NULLIF(current_setting('app.current_company_id', true), ''))
  WITH CHECK (company_id = NULLIF(current_setting('app.current_company_id', true), ''));
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency TO bulkhead_runtime;
