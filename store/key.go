package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

const (
	keyColumns = `k.id, k.kind, COALESCE(k.project_id, ''), COALESCE(k.service_account_id, ''), k.name, k.redacted,
	k.hash, k.created_at, k.expires_at, k.limits, k.rules, k.old_hash, k.old_until, k.last_used_at, k.user_id`
	ownedKeyRows = `SELECT ` + keyColumns + `, a.id, a.project_id, a.name, a.role, a.created_at
	FROM api_key AS k JOIN service_account AS a ON a.company_id = $1 AND a.id = k.service_account_id
	WHERE k.company_id = $1 AND k.revoked_at = 0`
	adminKeyRows = `SELECT ` + keyColumns + ` FROM api_key AS k
	WHERE k.company_id = $1 AND k.kind = 'admin' AND k.revoked_at = 0`
	keysBetween  = ` AND (k.created_at, k.id) > ($2, $3) AND (k.created_at, k.id) < ($4, $5)`
	keysOldToNew = ` ORDER BY k.created_at, k.id LIMIT $6`
	keysNewToOld = ` ORDER BY k.created_at DESC, k.id DESC LIMIT $6`
)

// The cursors find revoked keys too: who revokes while turning pages goes on
// where they were.
var (
	keyList = list[statement]{
		statement{"keys_cursor",
			`SELECT created_at FROM api_key WHERE company_id = $1 AND id = $2 AND project_id = $3`},
		statement{"keys_ascending", ownedKeyRows + ` AND k.project_id = $7` + keysBetween + keysOldToNew},
		statement{"keys_descending", ownedKeyRows + ` AND k.project_id = $7` + keysBetween + keysNewToOld},
	}
	adminKeyList = list[statement]{
		statement{"admin_keys_cursor",
			`SELECT created_at FROM api_key WHERE company_id = $1 AND id = $2 AND kind = 'admin'`},
		statement{"admin_keys_ascending", adminKeyRows + keysBetween + keysOldToNew},
		statement{"admin_keys_descending", adminKeyRows + keysBetween + keysNewToOld},
	}
)

var (
	keyLoaded = statement{"key_loaded",
		`SELECT ` + keyColumns + ` FROM api_key AS k WHERE k.company_id = $1 AND k.id = $2 AND k.revoked_at = 0`}
	keyOne      = statement{"key_one", ownedKeyRows + ` AND k.project_id = $2 AND k.id = $3`}
	adminKeyOne = statement{"admin_key_one", adminKeyRows + ` AND k.id = $2`}
	keyInserted = statement{"key_inserted",
		`INSERT INTO api_key (company_id, id, kind, project_id, service_account_id, name, redacted, hash,
			created_at, expires_at, limits, rules, user_id)
		VALUES ($1, $2, $3, NULLIF($4, ''), NULLIF($5, ''), $6, $7, $8, $9, $10, $11, $12, $13)`}
	keyUpdated = statement{"key_updated",
		`UPDATE api_key SET name = $4, limits = $5, expires_at = $6, rules = $7
		WHERE company_id = $1 AND project_id = $2 AND id = $3 AND revoked_at = 0`}
	// Who rotates a key that somebody else has just rotated is told so: the value
	// before must be the one that was read.
	keyRotated = statement{"key_rotated",
		`UPDATE api_key SET hash = $4, redacted = $5, old_hash = $6, old_until = $7
		WHERE company_id = $1 AND COALESCE(project_id, '') = $2 AND id = $3 AND hash = $6 AND revoked_at = 0`}
	keyUsed = statement{"key_used",
		`UPDATE api_key SET last_used_at = $3 WHERE company_id = $1 AND id = $2 AND last_used_at < $3`}
	keyRevoked = statement{"key_revoked",
		`UPDATE api_key SET revoked_at = $4
		WHERE company_id = $1 AND project_id = $2 AND id = $3 AND revoked_at = 0`}
	adminKeyRevoked = statement{"admin_key_revoked",
		`UPDATE api_key SET revoked_at = $3
		WHERE company_id = $1 AND kind = 'admin' AND id = $2 AND revoked_at = 0`}
	keysOfAccountRevoked = statement{"keys_of_account_revoked",
		`UPDATE api_key SET revoked_at = $3
		WHERE company_id = $1 AND service_account_id = $2 AND revoked_at = 0 RETURNING id`}
)

// hashOf scans a key's hash.
type hashOf struct{ to *[sha256.Size]byte }

func (h hashOf) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(h.to) {
		return fmt.Errorf("hash of a key is stored as %T", v)
	}
	copy(h.to[:], b)
	return nil
}

// oldHashOf and oldUntilOf scan the value before, in this order, which need not be
// there.
type (
	oldHashOf  struct{ k *tenant.Key }
	oldUntilOf struct{ k *tenant.Key }
)

func (o oldHashOf) Scan(v any) error {
	if v == nil {
		return nil
	}
	o.k.Old = new(tenant.OldValue)
	return hashOf{&o.k.Old.Hash}.Scan(v)
}

func (o oldUntilOf) Scan(v any) error {
	if o.k.Old == nil {
		return nil
	}
	return moment{&o.k.Old.Until}.Scan(v)
}

// kindOf scans a key's kind.
type kindOf struct{ to *tenant.KeyKind }

func (k kindOf) Scan(v any) error {
	name, _ := v.(string)
	kind, ok := tenant.ParseKeyKind(name)
	if !ok {
		return fmt.Errorf("kind of a key is stored as %T %q", v, name)
	}
	*k.to = kind
	return nil
}

func keyDest(k *tenant.Key) []any {
	return []any{&k.ID, kindOf{&k.Kind}, &k.ProjectID, &k.ServiceAccountID, &k.Name, &k.Redacted,
		hashOf{&k.Hash}, moment{&k.CreatedAt}, moment{&k.ExpiresAt}, object{&k.Limits},
		object{&k.Rules}, oldHashOf{k}, oldUntilOf{k}, moment{&k.LastUsedAt}, &k.UserID}
}

func ownedKeyDest(k *tenant.KeyWithOwner) []any {
	return append(keyDest(&k.Key), accountDest(&k.Owner)...)
}

// LoadKey implements tenant.Source.
func (db *DB) LoadKey(ctx context.Context, id tenant.ID, keyID string) (*tenant.Key, error) {
	k := &tenant.Key{}
	err := db.read(ctx, id, func(t *tx) error { return t.one(keyLoaded, keyDest(k), keyID) })
	if err != nil {
		return nil, err
	}
	return k, nil
}

// addKey stores a key. One of a project belongs to an account of that project.
func (t *tx) addKey(k tenant.Key) error {
	if k.Name != "" {
		if err := checkName("name", k.Name); err != nil {
			return err
		}
	}
	switch k.Kind {
	case tenant.KeyAdmin:
		if k.ProjectID != "" || k.ServiceAccountID != "" {
			panic("BUG: an admin key of a project")
		}
	case tenant.KeyLive, tenant.KeyTest:
		if err := t.openProject(k.ProjectID); err != nil {
			return err
		}
		if _, err := t.account(k.ProjectID, k.ServiceAccountID); err != nil {
			return err
		}
	default:
		panic("BUG: a company has no key of kind " + k.Kind.String())
	}
	_, err := t.exec(keyInserted, k.ID, k.Kind.String(), k.ProjectID, k.ServiceAccountID, k.Name, k.Redacted,
		k.Hash[:], micros(k.CreatedAt), micros(k.ExpiresAt), asJSON(k.Limits), asJSON(k.Rules), k.UserID)
	if err != nil {
		return conflict(err)
	}
	return t.audit(audit.APIKeyCreated, k.ProjectID, k.ID, made[keyed]{keyOf(k)})
}

func (t *tx) ownedKey(project, id string) (k tenant.KeyWithOwner, err error) {
	err = t.one(keyOne, ownedKeyDest(&k), project, id)
	return k, err
}

// ProjectKeys implements web.Registry.
func (db *DB) ProjectKeys(ctx context.Context, s tenant.Scope, project string, p openai.Page) (all []tenant.KeyWithOwner, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if _, err := t.project(project); err != nil {
			return err
		}
		all, more, err = readPage(t, keyList, p, func(r row) (k tenant.KeyWithOwner, err error) {
			err = r.Scan(ownedKeyDest(&k)...)
			return k, err
		}, []any{project}, nil)
		return err
	})
	return all, more, err
}

// ProjectKey implements web.Registry.
func (db *DB) ProjectKey(ctx context.Context, s tenant.Scope, project, id string) (k tenant.KeyWithOwner, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		k, err = t.ownedKey(project, id)
		return err
	})
	return k, err
}

// AdminKeys implements web.Registry.
func (db *DB) AdminKeys(ctx context.Context, s tenant.Scope, p openai.Page) (all []tenant.Key, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, more, err = readPage(t, adminKeyList, p, func(r row) (k tenant.Key, err error) {
			err = r.Scan(keyDest(&k)...)
			return k, err
		}, nil, nil)
		return err
	})
	return all, more, err
}

// AdminKey implements web.Registry.
func (db *DB) AdminKey(ctx context.Context, s tenant.Scope, id string) (k tenant.Key, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error { return t.one(adminKeyOne, keyDest(&k), id) })
	return k, err
}

// CreateKey implements web.Registry.
func (db *DB) CreateKey(ctx context.Context, s tenant.Scope, k tenant.Key) error {
	return db.change(ctx, s, func(t *tx) error {
		if k.Kind == tenant.KeyAdmin { // nobody makes a key that may do more than they
			holds, err := t.holds(k)
			if err != nil {
				return err
			}
			if !holds.Within(s.Grants()) {
				return errAbove
			}
		}
		return t.addKey(k)
	})
}

// UpdateKey implements web.Registry.
func (db *DB) UpdateKey(ctx context.Context, s tenant.Scope, k tenant.Key) (owned tenant.KeyWithOwner, err error) {
	if k.Name != "" {
		if err := checkName("name", k.Name); err != nil {
			return owned, err
		}
	}
	err = db.change(ctx, s, func(t *tx) error {
		if err := t.openProject(k.ProjectID); err != nil {
			return err
		}
		if err := must(t.exec(keyUpdated, k.ProjectID, k.ID, k.Name, asJSON(k.Limits), micros(k.ExpiresAt), asJSON(k.Rules))); err != nil {
			return err
		}
		if owned, err = t.ownedKey(k.ProjectID, k.ID); err != nil {
			return err
		}
		return t.audit(audit.APIKeyUpdated, k.ProjectID, k.ID, changed[keyed]{keyOf(owned.Key)})
	})
	return owned, err
}

// RevokeKey implements web.Registry.
func (db *DB) RevokeKey(ctx context.Context, s tenant.Scope, project, id string) error {
	return db.change(ctx, s, func(t *tx) error {
		var err error
		if project == "" {
			if err := t.mayRevoke(s, id); err != nil {
				return err
			}
			err = must(t.exec(adminKeyRevoked, id, micros(t.now)))
		} else {
			err = must(t.exec(keyRevoked, project, id, micros(t.now)))
		}
		if err != nil {
			return err
		}
		return t.audit(audit.APIKeyDeleted, project, id)
	})
}

// RotateKey implements web.Registry.
func (db *DB) RotateKey(ctx context.Context, s tenant.Scope, k tenant.Key) error {
	return db.change(ctx, s, func(t *tx) error {
		if k.ProjectID != "" {
			if err := t.openProject(k.ProjectID); err != nil {
				return err
			}
		}
		if k.ProjectID == "" { // who gets the value gets what the key may do
			if err := t.mayRevoke(s, k.ID); err != nil {
				return err
			}
		}
		n, err := t.exec(keyRotated, k.ProjectID, k.ID, k.Hash[:], k.Redacted, k.Old.Hash[:], micros(k.Old.Until))
		if err != nil {
			return err
		}
		if n == 0 {
			return fault.New(fault.Conflict, "Somebody else changed this key at the same time. Look at it again.")
		}
		return t.audit(audit.APIKeyUpdated, k.ProjectID, k.ID, rotated{Rotated: true, OldUntil: k.Old.Until.Unix()})
	})
}

// KeysUsed stores when keys of one company were used. All gateways do so with the
// same keys, and in the same order: none waits for one that waits for it.
func (db *DB) KeysUsed(ctx context.Context, s tenant.Scope, used []tenant.KeyUse) error {
	used = slices.SortedFunc(slices.Values(used), func(a, b tenant.KeyUse) int { return strings.Compare(a.Scope.KeyID(), b.Scope.KeyID()) })
	return db.add(ctx, s, func(t *tx) error {
		for _, u := range used {
			if u.Scope.ID() != s.ID() {
				panic("BUG: a key of another company")
			}
			if err := t.send(keyUsed, u.Scope.KeyID(), micros(u.At)); err != nil {
				return err
			}
		}
		return t.flush()
	})
}

// mayRevoke sees that s holds what an admin key may do: who has less must not end
// the keys of those with more.
func (t *tx) mayRevoke(s tenant.Scope, id string) error {
	var k tenant.Key
	if err := t.one(adminKeyOne, keyDest(&k), id); err != nil {
		return err
	}
	holds, err := t.holds(k)
	if err != nil {
		return err
	}
	if !holds.Within(s.Grants()) {
		return errAbove
	}
	return nil
}

// holds returns what an admin key may do.
func (t *tx) holds(k tenant.Key) (tenant.Grants, error) {
	holds := tenant.Grants{Company: tenant.AllPermissions}
	if k.UserID != "" {
		u, err := t.person(k.UserID)
		if err != nil {
			return holds, err
		}
		holds = u.Grants
	}
	return k.Narrow(holds), nil
}
