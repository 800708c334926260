ALTER TABLE budget
  ALTER COLUMN company_id TYPE TEXT COLLATE "C", ALTER COLUMN id TYPE TEXT COLLATE "C", ALTER COLUMN kind TYPE TEXT COLLATE "C",
  ALTER COLUMN owner TYPE TEXT COLLATE "C", ALTER COLUMN unit TYPE TEXT COLLATE "C", ALTER COLUMN period TYPE TEXT COLLATE "C";
ALTER TABLE company
  ALTER COLUMN zone TYPE TEXT COLLATE "C", ALTER COLUMN zone_before TYPE TEXT COLLATE "C";
ALTER TABLE budget ENABLE ROW LEVEL SECURITY;
ALTER TABLE budget FORCE ROW LEVEL SECURITY;
CREATE POLICY budget_of_company ON budget
  USING (company_id = NULLIF(current_setting('app.current_company_id', true), ''))
  WITH CHECK (company_id = NULLIF(current_setting('app.current_company_id', true), ''));
GRANT SELECT, INSERT, UPDATE, DELETE ON budget TO bulkhead_runtime;
