package store

import (
	"context"
	"errors"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

const inviteRows = `SELECT id, email, role, projects, hash, created_at, expires_at, accepted_at FROM invite WHERE company_id = $1`

var inviteList = list[statement]{
	statement{"invites_cursor", `SELECT created_at FROM invite WHERE company_id = $1 AND id = $2`},
	statement{"invites_ascending", inviteRows + between + oldToNew},
	statement{"invites_descending", inviteRows + between + newToOld},
}

var (
	inviteOne      = statement{"invite_one", inviteRows + ` AND id = $2`}
	inviteInserted = statement{"invite_inserted",
		`INSERT INTO invite (company_id, id, email, role, projects, hash, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`}
	inviteAccepted = statement{"invite_accepted",
		`UPDATE invite SET accepted_at = $3 WHERE company_id = $1 AND id = $2 AND accepted_at = 0 AND expires_at > $3`}
	inviteDeleted = statement{"invite_deleted",
		`DELETE FROM invite WHERE company_id = $1 AND id = $2 AND accepted_at = 0`}
	invitesPending = statement{"invites_pending", `SELECT count(*) FROM invite WHERE company_id = $1 AND accepted_at = 0`}
	// invitesReplaced takes back what was asked before: the last token counts.
	invitesReplaced = statement{"invites_replaced",
		`DELETE FROM invite WHERE company_id = $1 AND email = $2 AND accepted_at = 0 RETURNING id`}
)

func scanInvite(r row) (i tenant.Invite, err error) {
	k := &i.Key
	k.Kind = tenant.KeyInvite
	err = r.Scan(&k.ID, &i.Email, &i.Role, object{&i.Projects}, hashOf{&k.Hash}, moment{&k.CreatedAt}, moment{&k.ExpiresAt}, moment{&i.AcceptedAt})
	return i, err
}

func (t *tx) invite(id string) (i tenant.Invite, err error) {
	found := false
	err = t.query(inviteOne, func(r row) error { found = true; i, err = scanInvite(r); return err }, id)
	if err == nil && !found {
		err = errNoRow
	}
	return i, err
}

// Invites implements web.People.
func (db *DB) Invites(ctx context.Context, s tenant.Scope, p openai.Page) (all []tenant.Invite, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, more, err = readPage(t, inviteList, p, scanInvite, nil, nil)
		return err
	})
	return all, more, err
}

// LoadInvite implements tenant.People.
func (db *DB) LoadInvite(ctx context.Context, id tenant.ID, inviteID string) (*tenant.Invite, error) {
	var i tenant.Invite
	err := db.read(ctx, id, func(t *tx) (err error) {
		i, err = t.invite(inviteID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &i, nil
}

// roles returns the roles that an invite gives, by place.
func (t *tx) invitedRoles(i tenant.Invite) (map[string]tenant.Role, error) {
	roles := map[string]tenant.Role{}
	o, ok := tenant.BuiltInRoleNamed(i.Role, false)
	if !ok {
		return nil, fault.Field("role", "role must be owner, manager or reader.")
	}
	roles[""] = o
	for _, p := range i.Projects {
		if roles[p.ID], ok = tenant.BuiltInRoleNamed(p.Role, true); !ok {
			return nil, fault.Field("projects", "A project's role must be owner, manager or member.")
		}
	}
	return roles, nil
}

// mayInvite sees that s holds all that an invite gives.
func (t *tx) mayInvite(s tenant.Scope, i tenant.Invite) error {
	roles, err := t.invitedRoles(i)
	if err != nil {
		return err
	}
	for project, o := range roles {
		if !o.Permissions.Within(s.Grants().In(project)) {
			return errAbove
		}
	}
	return nil
}

// CreateInvite implements web.People.
func (db *DB) CreateInvite(ctx context.Context, s tenant.Scope, i tenant.Invite, most int) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := t.mayInvite(s, i); err != nil {
			return err
		}
		for _, p := range i.Projects {
			if err := t.openProject(p.ID); err != nil {
				return err
			}
		}
		return t.addInvite(i, most)
	})
}

// addInvite stores an invite, where fewer than most wait to be accepted.
func (t *tx) addInvite(i tenant.Invite, most int) error {
	var id, hash string
	err := t.one(personByEmail, []any{&id, &hash}, i.Email)
	switch {
	case err == nil:
		return fault.New(fault.Conflict, "A user with this email is in the company already.").WithCode("user_exists")
	case !errors.Is(err, errNoRow):
		return err
	}
	var old []string
	err = t.query(invitesReplaced, func(r row) error {
		var id string
		err := r.Scan(&id)
		old = append(old, id)
		return err
	}, i.Email)
	if err != nil {
		return err
	}
	for _, id := range old {
		if err := t.audit(audit.InviteDeleted, "", id); err != nil {
			return err
		}
	}
	var pending int
	if err := t.one(invitesPending, []any{&pending}); err != nil {
		return err
	}
	if pending >= most {
		return fault.New(fault.Invalid, "There are %d invites already that nobody has accepted. Delete some of them.", pending).WithCode("too_many_invites")
	}
	k := i.Key
	if _, err := t.exec(inviteInserted, k.ID, i.Email, i.Role, asJSON(i.Projects), k.Hash[:], micros(k.CreatedAt), micros(k.ExpiresAt)); err != nil {
		return conflict(err)
	}
	return t.audit(audit.InviteSent, "", k.ID, made[emailed]{emailed{i.Email, i.Role}})
}

type emailed struct {
	Email string `json:"email"`
	Role  string `json:"role"`
}

// DeleteInvite implements web.People.
func (db *DB) DeleteInvite(ctx context.Context, s tenant.Scope, id string) error {
	return db.change(ctx, s, func(t *tx) error {
		i, err := t.invite(id)
		if err != nil {
			return err
		}
		if !i.AcceptedAt.IsZero() {
			return fault.New(fault.Conflict, "The invite was accepted. Remove the user instead.").WithCode("invite_accepted")
		}
		if err := t.mayInvite(s, i); err != nil {
			return err
		}
		if err := must(t.exec(inviteDeleted, id)); err != nil {
			return err
		}
		return t.audit(audit.InviteDeleted, "", id)
	})
}

// AcceptInvite implements web.People.
func (db *DB) AcceptInvite(ctx context.Context, s tenant.Scope, u tenant.User, password string) (now tenant.User, err error) {
	err = db.change(ctx, s, func(t *tx) error {
		i, err := t.invite(s.KeyID())
		if err != nil {
			return err
		}
		// Only one of two who accept at once does: the row says who was first.
		if err := must(t.exec(inviteAccepted, i.Key.ID, micros(t.now))); err != nil {
			return err
		}
		if _, err := t.exec(personInserted, u.ID, i.Email, u.Name, password, micros(u.CreatedAt)); err != nil {
			return conflict(err)
		}
		if err := t.audit(audit.InviteAccepted, "", i.Key.ID); err != nil {
			return err
		}
		if err := t.audit(audit.UserAdded, "", u.ID, made[inRole]{inRole{i.Role}}); err != nil {
			return err
		}
		roles, err := t.invitedRoles(i)
		if err != nil {
			return err
		}
		for project, o := range roles {
			if err := t.place(project); errors.Is(err, errNoRow) {
				continue // archived since
			} else if err != nil {
				return err
			}
			if err := t.give(project, u.ID, o.ID); err != nil {
				return err
			}
		}
		now, err = t.person(u.ID)
		return err
	})
	return now, err
}
