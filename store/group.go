package store

import (
	"context"
	"slices"
	"strings"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/tenant"
)

var (
	groupsAll = statement{"groups_all",
		`SELECT id, name, created_at FROM person_group WHERE company_id = $1 ORDER BY created_at, id`}
	groupInserted = statement{"group_inserted",
		`INSERT INTO person_group (company_id, id, name, created_at) VALUES ($1, $2, $3, $4)`}
	groupRenamed = statement{"group_renamed",
		`UPDATE person_group SET name = $3 WHERE company_id = $1 AND id = $2`}
	groupDeleted = statement{"group_deleted", `DELETE FROM person_group WHERE company_id = $1 AND id = $2`}

	memberPut = statement{"member_put",
		`INSERT INTO group_member (company_id, group_id, user_id, created_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (company_id, group_id, user_id) DO NOTHING`}
	memberGone       = statement{"member_gone", `DELETE FROM group_member WHERE company_id = $1 AND group_id = $2 AND user_id = $3`}
	memberOfAllGone  = statement{"member_of_all_gone", `DELETE FROM group_member WHERE company_id = $1 AND user_id = $2`}
	membersOfOneGone = statement{"members_of_one_gone", `DELETE FROM group_member WHERE company_id = $1 AND group_id = $2`}
)

// maxGroups bounds the groups of a company.
const maxGroups = 1000

// isGroup reports whether the id of a user or group is a group's.
func isGroup(id string) bool { return strings.HasPrefix(id, "group-") }

func (t *tx) groups() (all []tenant.Group, err error) {
	err = t.query(groupsAll, func(r row) error {
		var g tenant.Group
		err := r.Scan(&g.ID, &g.Name, moment{&g.CreatedAt})
		all = append(all, g)
		return err
	})
	return all, err
}

func (t *tx) group(id string) (g tenant.Group, err error) {
	all, err := t.groups()
	if err != nil {
		return g, err
	}
	i := slices.IndexFunc(all, func(g tenant.Group) bool { return g.ID == id })
	if i < 0 {
		return g, errNoRow
	}
	return all[i], nil
}

// mayMove sees that s holds all that a group gives: who puts a user into it, or
// takes one out, gives that or takes it away.
func (t *tx) mayMove(s tenant.Scope, group string) error {
	if _, err := t.group(group); err != nil {
		return err
	}
	type at struct{ project, role string }
	var all []at
	err := t.query(grantsEverywhere, func(r row) error {
		var a at
		err := r.Scan(&a.project, &a.role)
		all = append(all, a)
		return err
	}, group)
	if err != nil {
		return err
	}
	for _, a := range all {
		if _, err := t.mayHandle(s, a.project, a.role); err != nil {
			return err
		}
	}
	return nil
}

// Groups implements web.People.
func (db *DB) Groups(ctx context.Context, s tenant.Scope) (all []tenant.Group, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, err = t.groups()
		return err
	})
	return all, err
}

// CreateGroup implements web.People.
func (db *DB) CreateGroup(ctx context.Context, s tenant.Scope, g tenant.Group) error {
	return db.change(ctx, s, func(t *tx) error {
		all, err := t.groups()
		if err != nil {
			return err
		}
		if len(all) >= maxGroups {
			return fault.New(fault.Invalid, "The company has %d groups, which is the most there can be.", maxGroups).WithCode("too_many_groups")
		}
		if _, err := t.exec(groupInserted, g.ID, g.Name, micros(g.CreatedAt)); err != nil {
			return conflict(err)
		}
		return t.audit(audit.GroupCreated, "", g.ID, made[groupNamed]{groupNamed{g.Name}})
	})
}

type groupNamed struct {
	Name string `json:"group_name"`
}

// RenameGroup implements web.People.
func (db *DB) RenameGroup(ctx context.Context, s tenant.Scope, id, name string) (g tenant.Group, err error) {
	err = db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(groupRenamed, id, name)); err != nil {
			return err
		}
		if g, err = t.group(id); err != nil {
			return err
		}
		return t.audit(audit.GroupUpdated, "", id, changed[groupNamed]{groupNamed{name}})
	})
	return g, err
}

// DeleteGroup implements web.People.
func (db *DB) DeleteGroup(ctx context.Context, s tenant.Scope, id string) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := t.mayMove(s, id); err != nil {
			return err
		}
		for _, st := range []statement{membersOfOneGone, grantsOfAllGone, groupDeleted} {
			if _, err := t.exec(st, id); err != nil {
				return err
			}
		}
		return t.audit(audit.GroupDeleted, "", id)
	})
}

// GroupUsers implements web.People.
func (db *DB) GroupUsers(ctx context.Context, s tenant.Scope, group string) (all []tenant.User, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if _, err := t.group(group); err != nil {
			return err
		}
		return t.query(personsOfGroup, func(r row) error {
			u, err := scanPerson(r)
			all = append(all, u)
			return err
		}, group)
	})
	return all, err
}

// membership is what the audit log says of who comes and goes.
type membership struct {
	Added   string `json:"user_added,omitempty"`
	Removed string `json:"user_removed,omitempty"`
}

// AddGroupUser implements web.People.
func (db *DB) AddGroupUser(ctx context.Context, s tenant.Scope, group, user string) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := t.mayMove(s, group); err != nil {
			return err
		}
		if _, err := t.person(user); err != nil {
			return err
		}
		if _, err := t.exec(memberPut, group, user, micros(t.now)); err != nil {
			return err
		}
		return t.audit(audit.GroupUpdated, "", group, changed[membership]{membership{Added: user}})
	})
}

// RemoveGroupUser implements web.People.
func (db *DB) RemoveGroupUser(ctx context.Context, s tenant.Scope, group, user string) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := t.mayMove(s, group); err != nil {
			return err
		}
		if err := must(t.exec(memberGone, group, user)); err != nil {
			return err
		}
		return t.audit(audit.GroupUpdated, "", group, changed[membership]{membership{Removed: user}})
	})
}
