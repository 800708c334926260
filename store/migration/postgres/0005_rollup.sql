ALTER TABLE rollup
  ALTER COLUMN company_id TYPE TEXT COLLATE "C", ALTER COLUMN project_id TYPE TEXT COLLATE "C", ALTER COLUMN key_id TYPE TEXT COLLATE "C",
  ALTER COLUMN user_id TYPE TEXT COLLATE "C", ALTER COLUMN agent_id TYPE TEXT COLLATE "C", ALTER COLUMN kind TYPE TEXT COLLATE "C",
  ALTER COLUMN provider TYPE TEXT COLLATE "C", ALTER COLUMN model TYPE TEXT COLLATE "C", ALTER COLUMN tier TYPE TEXT COLLATE "C";
ALTER TABLE rollup_day
  ALTER COLUMN company_id TYPE TEXT COLLATE "C", ALTER COLUMN built TYPE TEXT COLLATE "C";
ALTER TABLE alert
  ALTER COLUMN company_id TYPE TEXT COLLATE "C", ALTER COLUMN id TYPE TEXT COLLATE "C", ALTER COLUMN project_id TYPE TEXT COLLATE "C",
  ALTER COLUMN url TYPE TEXT COLLATE "C";
ALTER TABLE alert_event
  ALTER COLUMN company_id TYPE TEXT COLLATE "C", ALTER COLUMN id TYPE TEXT COLLATE "C", ALTER COLUMN alert_id TYPE TEXT COLLATE "C";
ALTER TABLE upkeep
  ALTER COLUMN company_id TYPE TEXT COLLATE "C", ALTER COLUMN kind TYPE TEXT COLLATE "C";

DO $$
DECLARE
  name TEXT;
BEGIN
  FOREACH name IN ARRAY ARRAY['rollup', 'rollup_day', 'alert', 'alert_event']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY %I ON %I
      USING (company_id = NULLIF(current_setting(''app.current_company_id'', true), ''''))
      WITH CHECK (company_id = NULLIF(current_setting(''app.current_company_id'', true), ''''))',
      name || '_of_company', name);
  END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE, DELETE ON rollup, rollup_day, alert, alert_event, upkeep TO bulkhead_runtime;
