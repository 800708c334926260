ALTER TABLE identity_provider
  ALTER COLUMN company_id TYPE TEXT COLLATE "C", ALTER COLUMN id TYPE TEXT COLLATE "C", ALTER COLUMN name TYPE TEXT COLLATE "C",
  ALTER COLUMN description TYPE TEXT COLLATE "C", ALTER COLUMN issuer TYPE TEXT COLLATE "C", ALTER COLUMN audience TYPE TEXT COLLATE "C",
  ALTER COLUMN jwks TYPE TEXT COLLATE "C", ALTER COLUMN discovery_url TYPE TEXT COLLATE "C", ALTER COLUMN attributes TYPE TEXT COLLATE "C";
ALTER TABLE federation_rule
  ALTER COLUMN company_id TYPE TEXT COLLATE "C", ALTER COLUMN id TYPE TEXT COLLATE "C", ALTER COLUMN provider_id TYPE TEXT COLLATE "C",
  ALTER COLUMN name TYPE TEXT COLLATE "C", ALTER COLUMN description TYPE TEXT COLLATE "C", ALTER COLUMN matchers TYPE TEXT COLLATE "C",
  ALTER COLUMN project_id TYPE TEXT COLLATE "C", ALTER COLUMN service_account_id TYPE TEXT COLLATE "C", ALTER COLUMN scopes TYPE TEXT COLLATE "C";
ALTER TABLE approved_audience
  ALTER COLUMN audience TYPE TEXT COLLATE "C", ALTER COLUMN id TYPE TEXT COLLATE "C", ALTER COLUMN company_id TYPE TEXT COLLATE "C";

DO $$
DECLARE
  name TEXT;
BEGIN
  FOREACH name IN ARRAY ARRAY['identity_provider', 'federation_rule']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY %I ON %I
      USING (company_id = NULLIF(current_setting(''app.current_company_id'', true), ''''))
      WITH CHECK (company_id = NULLIF(current_setting(''app.current_company_id'', true), ''''))',
      name || '_of_company', name);
  END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE, DELETE ON identity_provider, federation_rule, approved_audience TO bulkhead_runtime;
