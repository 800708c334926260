CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'audit rows are only added'); END;

CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
WHEN NOT EXISTS (SELECT 1 FROM company WHERE company_id = OLD.company_id AND status = 'erasing')
BEGIN SELECT RAISE(ABORT, 'audit rows are only added'); END;

CREATE TRIGGER operator_act_is_not_changed BEFORE UPDATE ON operator_act
BEGIN SELECT RAISE(ABORT, 'acts of operators are only added'); END;

CREATE TRIGGER operator_act_is_not_deleted BEFORE DELETE ON operator_act
BEGIN SELECT RAISE(ABORT, 'acts of operators are only added'); END;
