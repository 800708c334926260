package store

import (
	"context"
	"strings"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// A person is shown with the built-in role that counts most in the company, by
// its place in tenant.BuiltInRoles.
const (
	personRows = `SELECT p.id, p.email, p.name, p.created_at, COALESCE((SELECT MIN(CASE g.role_id
		WHEN '` + tenant.RoleOwner + `' THEN 0 WHEN '` + tenant.RoleManager + `' THEN 1 WHEN '` + tenant.RoleMember + `' THEN 2 ELSE 3 END)
		FROM role_grant AS g WHERE g.company_id = $1 AND g.project_id = '' AND g.principal = p.id), 3)
	FROM person AS p`
	personsBetween = ` WHERE p.company_id = $1 AND (p.created_at, p.id) > ($2, $3) AND (p.created_at, p.id) < ($4, $5)
	AND CASE WHEN $7 = '' THEN 'any' ELSE replace($7, '` + among1 + `' || p.email || '` + among1 + `', '') END <> $7`
)

var personList = list[statement]{
	statement{"persons_cursor", `SELECT created_at FROM person WHERE company_id = $1 AND id = $2`},
	statement{"persons_ascending", personRows + personsBetween + ` ORDER BY p.created_at, p.id LIMIT $6`},
	statement{"persons_descending", personRows + personsBetween + ` ORDER BY p.created_at DESC, p.id DESC LIMIT $6`},
}

var (
	personOne     = statement{"person_one", personRows + ` WHERE p.company_id = $1 AND p.id = $2`}
	personByEmail = statement{"person_by_email",
		`SELECT id, password FROM person WHERE company_id = $1 AND email = $2`}
	personInserted = statement{"person_inserted",
		`INSERT INTO person (company_id, id, email, name, password, created_at) VALUES ($1, $2, $3, $4, $5, $6)`}
	personPasswordSet = statement{"person_password_set",
		`UPDATE person SET password = $3 WHERE company_id = $1 AND id = $2`}
	personDeleted  = statement{"person_deleted", `DELETE FROM person WHERE company_id = $1 AND id = $2`}
	personsOfGroup = statement{"persons_of_group",
		personRows + ` JOIN group_member AS m ON m.company_id = $1 AND m.user_id = p.id
		WHERE p.company_id = $1 AND m.group_id = $2 ORDER BY m.created_at, p.id`}

	// ownersCounted counts the people who own the company by a role of their own:
	// one of these must stay.
	ownersCounted = statement{"owners_counted",
		`SELECT count(*) FROM role_grant AS g JOIN person AS p ON p.company_id = $1 AND p.id = g.principal
		WHERE g.company_id = $1 AND g.project_id = '' AND g.role_id = '` + tenant.RoleOwner + `'`}

	keysOfUserRevoked = statement{"keys_of_user_revoked",
		`UPDATE api_key SET revoked_at = $3 WHERE company_id = $1 AND user_id = $2 AND revoked_at = 0 RETURNING id`}
)

// The ways to be refused that people have.
var (
	errAbove = fault.New(fault.Forbidden, "This would give or take away permissions that you do not hold yourself.").WithCode("above_own_permissions")
	errLast  = fault.New(fault.Conflict, "The company must keep an owner: make somebody else one first.").WithCode("last_owner")
)

func scanPerson(r row) (u tenant.User, err error) {
	var rank int64
	err = r.Scan(&u.ID, &u.Email, &u.Name, moment{&u.CreatedAt}, &rank)
	if roles := tenant.BuiltInRoles(false); err == nil && rank < int64(len(roles)) {
		u.Role = roles[rank].Name
	}
	return u, err
}

// person returns a user with what all roles give.
func (t *tx) person(id string) (u tenant.User, err error) {
	found := false
	err = t.query(personOne, func(r row) error { found = true; u, err = scanPerson(r); return err }, id)
	if err == nil && !found {
		err = errNoRow
	}
	if err != nil {
		return u, err
	}
	u.Grants, err = t.grants(id)
	return u, err
}

// under returns a user who holds nothing that s does not.
func (t *tx) under(s tenant.Scope, id string) (u tenant.User, err error) {
	u, err = t.person(id)
	if err == nil && !u.Grants.Within(s.Grants()) {
		err = errAbove
	}
	return u, err
}

// keepOwner runs fn, which must not take the company its last owner.
func (t *tx) keepOwner(fn func() error) error {
	var before, after int64
	if err := t.one(ownersCounted, []any{&before}); err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	if err := t.one(ownersCounted, []any{&after}); err != nil {
		return err
	}
	if before > 0 && after == 0 {
		return errLast
	}
	return nil
}

// Users implements web.People.
func (db *DB) Users(ctx context.Context, s tenant.Scope, emails []string, p openai.Page) (all []tenant.User, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, more, err = readPage(t, personList, p, scanPerson, nil, []any{among(emails)})
		return err
	})
	return all, more, err
}

// User implements web.People.
func (db *DB) User(ctx context.Context, s tenant.Scope, id string) (u tenant.User, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		u, err = t.person(id)
		return err
	})
	return u, err
}

// LoadUser implements tenant.People.
func (db *DB) LoadUser(ctx context.Context, id tenant.ID, userID string) (*tenant.User, error) {
	var u tenant.User
	err := db.read(ctx, id, func(t *tx) (err error) {
		u, err = t.person(userID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &u, nil
}

// LoadLogin implements tenant.People.
func (db *DB) LoadLogin(ctx context.Context, id tenant.ID, email string) (*tenant.User, string, error) {
	var u tenant.User
	var password string
	err := db.read(ctx, id, func(t *tx) (err error) {
		var userID string
		if err := t.one(personByEmail, []any{&userID, &password}, storable(email)); err != nil {
			return err
		}
		u, err = t.person(userID)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return &u, password, nil
}

// UserByEmail implements web.People.
func (db *DB) UserByEmail(ctx context.Context, s tenant.Scope, email string) (tenant.User, error) {
	u, _, err := db.LoadLogin(ctx, s.ID(), strings.ToLower(email))
	if err != nil {
		return tenant.User{}, err
	}
	return *u, nil
}

// SetUserRole implements web.People.
func (db *DB) SetUserRole(ctx context.Context, s tenant.Scope, id, role string) (u tenant.User, err error) {
	err = db.change(ctx, s, func(t *tx) error {
		if _, err := t.under(s, id); err != nil {
			return err
		}
		err := t.keepOwner(func() error { return t.replaceRoles(s, "", id, role) })
		if err != nil {
			return err
		}
		if u, err = t.person(id); err != nil {
			return err
		}
		return t.audit(audit.UserUpdated, "", id, changed[inRole]{inRole{role}})
	})
	return u, err
}

// DeleteUser implements web.People.
func (db *DB) DeleteUser(ctx context.Context, s tenant.Scope, id string) error {
	return db.change(ctx, s, func(t *tx) error {
		if _, err := t.under(s, id); err != nil {
			return err
		}
		return t.keepOwner(func() error { return t.deletePerson(id) })
	})
}

func (t *tx) deletePerson(id string) error {
	var keys []string
	err := t.query(keysOfUserRevoked, func(r row) error {
		var key string
		err := r.Scan(&key)
		keys = append(keys, key)
		return err
	}, id, micros(t.now))
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := t.audit(audit.APIKeyDeleted, "", key); err != nil {
			return err
		}
	}
	if _, err := t.exec(sessionsEnded, id, ""); err != nil {
		return err
	}
	for _, st := range []statement{memberOfAllGone, grantsOfAllGone, personDeleted} {
		if _, err := t.exec(st, id); err != nil {
			return err
		}
	}
	return t.audit(audit.UserDeleted, "", id)
}

// SetPassword implements web.People.
func (db *DB) SetPassword(ctx context.Context, s tenant.Scope, password, keep string) error {
	id := s.UserID()
	return db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(personPasswordSet, id, password)); err != nil {
			return err
		}
		if _, err := t.exec(sessionsEnded, id, keep); err != nil {
			return err
		}
		return t.audit(audit.PasswordChanged, "", id)
	})
}
