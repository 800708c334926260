DO $$
DECLARE
  name TEXT;
  part TEXT;
BEGIN
  FOREACH name IN ARRAY ARRAY['response_owner']
  LOOP
    FOR part IN SELECT column_name FROM information_schema.columns
      WHERE table_schema = current_schema() AND table_name = name AND data_type = 'text'
    LOOP
      EXECUTE format('ALTER TABLE %I ALTER COLUMN %I TYPE TEXT COLLATE "C"', name, part);
    END LOOP;
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY %I ON %I
      USING (company_id = NULLIF(current_setting(''app.current_company_id'', true), ''''))
      WITH CHECK (company_id = NULLIF(current_setting(''app.current_company_id'', true), ''''))',
      name || '_of_company', name);
  END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE, DELETE ON response_owner TO bulkhead_runtime;
