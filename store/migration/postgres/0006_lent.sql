ALTER TABLE lent_credential
  ALTER COLUMN provider TYPE TEXT COLLATE "C", ALTER COLUMN id TYPE TEXT COLLATE "C", ALTER COLUMN redacted TYPE TEXT COLLATE "C",
  ALTER COLUMN base_url TYPE TEXT COLLATE "C";
ALTER TABLE lent_grant
  ALTER COLUMN company_id TYPE TEXT COLLATE "C", ALTER COLUMN credential_id TYPE TEXT COLLATE "C";

ALTER TABLE lent_grant ENABLE ROW LEVEL SECURITY;
ALTER TABLE lent_grant FORCE ROW LEVEL SECURITY;
CREATE POLICY lent_grant_of_company ON lent_grant
  USING (company_id = NULLIF(current_setting('app.current_company_id', true), ''))
  WITH CHECK (company_id = NULLIF(current_setting('app.current_company_id', true), ''));

GRANT SELECT, INSERT, UPDATE, DELETE ON lent_credential, lent_grant TO bulkhead_runtime;
GRANT SELECT, INSERT ON operator_data_key TO bulkhead_runtime;
