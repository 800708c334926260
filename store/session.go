package store

import (
	"context"
	"time"

	"bulkhead/audit"
	"bulkhead/tenant"
)

const sessionRows = `SELECT id, user_id, hash, agent, created_at, seen_at, expires_at FROM session WHERE company_id = $1`

var (
	sessionOne      = statement{"session_one", sessionRows + ` AND id = $2`}
	sessionsOfUser  = statement{"sessions_of_user", sessionRows + ` AND user_id = $2 ORDER BY created_at DESC, id DESC`}
	sessionInserted = statement{"session_inserted",
		`INSERT INTO session (company_id, id, user_id, hash, agent, created_at, seen_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`}
	sessionSeen = statement{"session_seen",
		`UPDATE session SET seen_at = $3 WHERE company_id = $1 AND id = $2 AND seen_at < $3`}
	sessionEnded = statement{"session_ended",
		`DELETE FROM session WHERE company_id = $1 AND user_id = $2 AND id = $3`}
	// sessionsEnded ends all sessions of a user but the one with id $3.
	sessionsEnded = statement{"sessions_ended",
		`DELETE FROM session WHERE company_id = $1 AND user_id = $2 AND id <> $3`}
	// sessionsOver removes those of a user that have ended by themselves.
	sessionsOver = statement{"sessions_over",
		`DELETE FROM session WHERE company_id = $1 AND user_id = $2 AND (expires_at <= $3 OR seen_at <= $4)`}
)

// maxSessions bounds the sessions of one user: the oldest ends for a new one.
const maxSessions = 50

func scanSession(r row) (s tenant.Session, err error) {
	k := &s.Key
	k.Kind = tenant.KeySession
	err = r.Scan(&k.ID, &s.UserID, hashOf{&k.Hash}, &s.Agent, moment{&k.CreatedAt}, moment{&s.SeenAt}, moment{&k.ExpiresAt})
	return s, err
}

// LoadSession implements tenant.People.
func (db *DB) LoadSession(ctx context.Context, id tenant.ID, sessionID string) (*tenant.Session, error) {
	var s tenant.Session
	found := false
	err := db.read(ctx, id, func(t *tx) error {
		return t.query(sessionOne, func(r row) (err error) { found = true; s, err = scanSession(r); return err }, sessionID)
	})
	if err == nil && !found {
		err = errNoRow
	}
	if err != nil {
		return nil, err
	}
	return &s, nil
}

// SeeSession implements tenant.People. It is no change of policy.
func (db *DB) SeeSession(ctx context.Context, id tenant.ID, sessionID string, at time.Time) error {
	return db.run(ctx, &tx{company: id.String()}, writing, func(t *tx) error {
		_, err := t.exec(sessionSeen, sessionID, micros(at))
		return err
	})
}

func (t *tx) sessions(user string) (all []tenant.Session, err error) {
	err = t.query(sessionsOfUser, func(r row) error {
		s, err := scanSession(r)
		all = append(all, s)
		return err
	}, user)
	return all, err
}

// Sessions implements web.People.
func (db *DB) Sessions(ctx context.Context, s tenant.Scope) (all []tenant.Session, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		found, err := t.sessions(s.UserID())
		for _, one := range found {
			if t.now.Before(one.Key.ExpiresAt) && t.now.Sub(one.SeenAt) < tenant.SessionIdle {
				all = append(all, one)
			}
		}
		return err
	})
	return all, err
}

// CreateSession implements web.People. It changes nobody's rights, so the
// company's policy stays as it is everywhere.
func (db *DB) CreateSession(ctx context.Context, s tenant.Scope, one tenant.Session) error {
	return db.run(ctx, &tx{company: s.ID().String(), actor: s.Actor()}, writing, func(t *tx) error {
		user := s.UserID()
		if _, err := t.person(user); err != nil { // removed since
			return err
		}
		if _, err := t.exec(sessionsOver, user, micros(t.now), micros(t.now.Add(-tenant.SessionIdle))); err != nil {
			return err
		}
		all, err := t.sessions(user)
		if err != nil {
			return err
		}
		for i := maxSessions - 1; i < len(all); i++ {
			if _, err := t.exec(sessionEnded, user, all[i].Key.ID); err != nil {
				return err
			}
		}
		k := one.Key
		if _, err := t.exec(sessionInserted, k.ID, user, k.Hash[:], storable(one.Agent), micros(k.CreatedAt), micros(k.CreatedAt), micros(k.ExpiresAt)); err != nil {
			return conflict(err)
		}
		return t.audit(audit.LoginSucceeded, "", k.ID)
	})
}

// EndSession implements web.People.
func (db *DB) EndSession(ctx context.Context, s tenant.Scope, id string) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(sessionEnded, s.UserID(), id)); err != nil {
			return err
		}
		return t.audit(audit.LogoutSucceeded, "", id)
	})
}
