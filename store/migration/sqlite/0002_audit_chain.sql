CREATE TRIGGER audit_link_is_not_changed BEFORE UPDATE ON audit_link
BEGIN SELECT RAISE(ABORT, 'audit rows are only added'); END;

CREATE TRIGGER audit_link_is_not_deleted BEFORE DELETE ON audit_link
WHEN NOT EXISTS (SELECT 1 FROM company WHERE company_id = OLD.company_id AND status = 'erasing')
BEGIN SELECT RAISE(ABORT, 'audit rows are only added'); END;

CREATE TRIGGER audit_head_goes_forward BEFORE UPDATE ON audit_head
WHEN NEW.count < OLD.count OR NEW.company_id <> OLD.company_id
BEGIN SELECT RAISE(ABORT, 'the head of a chain only goes forward'); END;

CREATE TRIGGER audit_head_is_not_deleted BEFORE DELETE ON audit_head
WHEN NOT EXISTS (SELECT 1 FROM company WHERE company_id = OLD.company_id AND status = 'erasing')
BEGIN SELECT RAISE(ABORT, 'audit rows are only added'); END;

CREATE TRIGGER act_link_is_not_changed BEFORE UPDATE ON act_link
BEGIN SELECT RAISE(ABORT, 'acts of operators are only added'); END;

CREATE TRIGGER act_link_is_not_deleted BEFORE DELETE ON act_link
BEGIN SELECT RAISE(ABORT, 'acts of operators are only added'); END;

CREATE TRIGGER act_head_goes_forward BEFORE UPDATE ON act_head
WHEN NEW.count < OLD.count
BEGIN SELECT RAISE(ABORT, 'the head of a chain only goes forward'); END;

CREATE TRIGGER act_head_is_not_deleted BEFORE DELETE ON act_head
BEGIN SELECT RAISE(ABORT, 'acts of operators are only added'); END;
