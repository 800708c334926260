-- By bytes, as all ids and names.
ALTER TABLE audit ALTER COLUMN detail TYPE TEXT COLLATE "C";
ALTER TABLE audit_link ALTER COLUMN company_id TYPE TEXT COLLATE "C", ALTER COLUMN id TYPE TEXT COLLATE "C";
ALTER TABLE audit_head ALTER COLUMN company_id TYPE TEXT COLLATE "C";
ALTER TABLE act_link ALTER COLUMN id TYPE TEXT COLLATE "C";

DO $$
DECLARE
  name TEXT;
BEGIN
  FOREACH name IN ARRAY ARRAY['audit_link', 'audit_head']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY %I ON %I
      USING (company_id = NULLIF(current_setting(''app.current_company_id'', true), ''''))
      WITH CHECK (company_id = NULLIF(current_setting(''app.current_company_id'', true), ''''))',
      name || '_of_company', name);
  END LOOP;
END $$;

CREATE FUNCTION goes_forward() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.count < OLD.count THEN
    RAISE EXCEPTION 'the head of a chain only goes forward';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER audit_link_is_not_changed BEFORE UPDATE ON audit_link FOR EACH ROW EXECUTE FUNCTION only_added();
CREATE TRIGGER audit_link_is_not_deleted BEFORE DELETE ON audit_link FOR EACH ROW EXECUTE FUNCTION audit_is_not_deleted();
CREATE TRIGGER audit_link_is_not_emptied BEFORE TRUNCATE ON audit_link FOR EACH STATEMENT EXECUTE FUNCTION only_added();
CREATE TRIGGER audit_head_goes_forward BEFORE UPDATE ON audit_head FOR EACH ROW EXECUTE FUNCTION goes_forward();
CREATE TRIGGER audit_head_is_not_deleted BEFORE DELETE ON audit_head FOR EACH ROW EXECUTE FUNCTION audit_is_not_deleted();
CREATE TRIGGER audit_head_is_not_emptied BEFORE TRUNCATE ON audit_head FOR EACH STATEMENT EXECUTE FUNCTION only_added();

CREATE TRIGGER act_link_is_not_changed BEFORE UPDATE OR DELETE ON act_link FOR EACH ROW EXECUTE FUNCTION only_added();
CREATE TRIGGER act_link_is_not_emptied BEFORE TRUNCATE ON act_link FOR EACH STATEMENT EXECUTE FUNCTION only_added();
CREATE TRIGGER act_head_goes_forward BEFORE UPDATE ON act_head FOR EACH ROW EXECUTE FUNCTION goes_forward();
CREATE TRIGGER act_head_is_not_deleted BEFORE DELETE ON act_head FOR EACH ROW EXECUTE FUNCTION only_added();
CREATE TRIGGER act_head_is_not_emptied BEFORE TRUNCATE ON act_head FOR EACH STATEMENT EXECUTE FUNCTION only_added();

-- No right to change a row or a link. Rows go only with their company.
GRANT SELECT, INSERT, DELETE ON audit_link TO bulkhead_runtime;
GRANT SELECT, INSERT, UPDATE, DELETE ON audit_head TO bulkhead_runtime;
GRANT SELECT, INSERT ON act_link TO bulkhead_runtime;
GRANT SELECT, INSERT, UPDATE ON act_head TO bulkhead_runtime;
