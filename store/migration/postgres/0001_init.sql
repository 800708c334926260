-- Ids and names are compared by their bytes, as in SQLite: ids that begin with a
-- time are then in its order, whatever the language of the database.
DO $$
DECLARE
  text_column RECORD;
BEGIN
  FOR text_column IN
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = current_schema() AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'
      AND table_name IN ('company', 'project', 'model_limit', 'service_account', 'api_key', 'route', 'credential', 'credential_name',
        'data_key', 'entry', 'audit', 'change', 'installation', 'operator_key', 'operator_act')
  LOOP
    EXECUTE format('ALTER TABLE %I ALTER COLUMN %I TYPE TEXT COLLATE "C"', text_column.table_name, text_column.column_name);
  END LOOP;
END $$;

-- Row-level security: a row is there only for the company that the transaction
-- has set. FORCE holds for the owner of the tables too. Where nothing is set,
-- the setting is NULL or, after an earlier transaction, '': no row is there.
DO $$
DECLARE
  name TEXT;
BEGIN
  FOREACH name IN ARRAY ARRAY['company', 'project', 'model_limit', 'service_account', 'api_key', 'route',
    'credential', 'credential_name', 'data_key', 'entry', 'audit']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY %I ON %I
      USING (company_id = NULLIF(current_setting(''app.current_company_id'', true), ''''))
      WITH CHECK (company_id = NULLIF(current_setting(''app.current_company_id'', true), ''''))',
      name || '_of_company', name);
  END LOOP;
END $$;

-- An operator's list of companies, in a transaction that was begun for an act.
CREATE POLICY company_of_operator ON company FOR SELECT
  USING (NULLIF(current_setting('app.operator_act', true), '') IS NOT NULL);

CREATE FUNCTION only_added() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'rows of % are only added', TG_TABLE_NAME;
END $$;

CREATE FUNCTION audit_is_not_deleted() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM company WHERE company_id = OLD.company_id AND status = 'erasing') THEN
    RAISE EXCEPTION 'rows of audit are only added';
  END IF;
  RETURN OLD;
END $$;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION only_added();
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_is_not_deleted();
CREATE TRIGGER audit_is_not_emptied BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION only_added();

CREATE TRIGGER operator_act_is_not_changed BEFORE UPDATE OR DELETE ON operator_act
  FOR EACH ROW EXECUTE FUNCTION only_added();
CREATE TRIGGER operator_act_is_not_emptied BEFORE TRUNCATE ON operator_act
  FOR EACH STATEMENT EXECUTE FUNCTION only_added();

-- The role the gateway runs as is a member of this one. It owns nothing.
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'bulkhead_runtime') THEN
    CREATE ROLE bulkhead_runtime NOLOGIN NOSUPERUSER NOBYPASSRLS;
  END IF;
END $$;
DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO bulkhead_runtime', current_schema()); END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON company, project, model_limit, service_account, api_key, route,
  credential, credential_name, data_key, entry, change, change_counter, installation, operator_key TO bulkhead_runtime;
GRANT SELECT, INSERT, DELETE ON audit TO bulkhead_runtime;
GRANT SELECT, INSERT ON operator_act TO bulkhead_runtime;
GRANT SELECT ON migration TO bulkhead_runtime;
