ALTER TABLE price
  ALTER COLUMN company_id TYPE TEXT COLLATE "C", ALTER COLUMN provider TYPE TEXT COLLATE "C", ALTER COLUMN model TYPE TEXT COLLATE "C",
  ALTER COLUMN spec TYPE TEXT COLLATE "C";
ALTER TABLE operator_price
  ALTER COLUMN provider TYPE TEXT COLLATE "C", ALTER COLUMN model TYPE TEXT COLLATE "C",
  ALTER COLUMN spec TYPE TEXT COLLATE "C";
ALTER TABLE price ENABLE ROW LEVEL SECURITY;
ALTER TABLE price FORCE ROW LEVEL SECURITY;
CREATE POLICY price_of_company ON price
  USING (company_id = NULLIF(current_setting('app.current_company_id', true), ''))
  WITH CHECK (company_id = NULLIF(current_setting('app.current_company_id', true), ''));
GRANT SELECT, INSERT, UPDATE, DELETE ON price, operator_price TO bulkhead_runtime;
