package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"bulkhead/store"
	"bulkhead/store/pgtest"
)

// rowsOf make one row in every company's table. A new table needs a line.
var rowsOf = []string{
	`INSERT INTO company (company_id, name, status, limits, generation, created_at) VALUES ($1, 'n', 'active', '{}', 1, 1)`,
	`INSERT INTO project (company_id, id, name, created_at, limits, permission_mode, permission_models) VALUES ($1, 'p', 'n', 1, '{}', '', '[]')`,
	`INSERT INTO model_limit (company_id, project_id, model, limits) VALUES ($1, 'p', 'm', '{}')`,
	`INSERT INTO service_account (company_id, id, project_id, name, role, created_at) VALUES ($1, 'a', 'p', 'n', 'owner', 1)`,
	`INSERT INTO api_key (company_id, id, kind, name, redacted, hash, created_at, expires_at, limits)
		VALUES ($1, 'k', 'admin', 'n', 'r', decode(repeat('00', 32), 'hex'), 1, 0, '{}')`,
	`INSERT INTO route (company_id, name, targets, created_at) VALUES ($1, 'r', '[]', 1)`,
	`INSERT INTO credential (company_id, id, provider, version, redacted, base_url, blob, created_at, updated_at)
		VALUES ($1, 'c', 'v', 1, 'r', '', '', 1, 1)`,
	`INSERT INTO credential_name (company_id, provider, id, version, redacted, base_url, created_at, updated_at)
		VALUES ($1, 'v', 'c', 1, 'r', '', 1, 1)`,
	`INSERT INTO budget (company_id, id, kind, owner, unit, period, amount, soft, created_at) VALUES ($1, 'b', 'company', '', 'usd', 'day', 1, false, 1)`,
	`INSERT INTO person (company_id, id, email, name, password, created_at) VALUES ($1, 'u', 'e', 'n', '', 1)`,
	`INSERT INTO invite (company_id, id, email, role, projects, hash, created_at, expires_at)
		VALUES ($1, 'i', 'e', 'member', '[]', decode(repeat('00', 32), 'hex'), 1, 2)`,
	`INSERT INTO person_group (company_id, id, name, created_at) VALUES ($1, 'g', 'n', 1)`,
	`INSERT INTO group_member (company_id, group_id, user_id, created_at) VALUES ($1, 'g', 'u', 1)`,
	`INSERT INTO custom_role (company_id, id, project_id, name, description, permissions, created_at, updated_at, created_by)
		VALUES ($1, 'r', '', 'n', '', '[]', 1, 1, 'a')`,
	`INSERT INTO role_grant (company_id, project_id, principal, role_id, created_at) VALUES ($1, '', 'u', 'r', 1)`,
	`INSERT INTO session (company_id, id, user_id, hash, user_agent, created_at, seen_at, expires_at)
		VALUES ($1, 's', 'u', decode(repeat('00', 32), 'hex'), '', 1, 1, 2)`,
	`INSERT INTO data_key (company_id, wrapped, created_at) VALUES ($1, 'w', 1)`,
	`INSERT INTO entry SELECT $1, 'e', '', '', '', '', '', '', '', '', 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, true, 0, 1, 1`,
	`INSERT INTO rollup SELECT $1, 1, '', '', '', '', '', '', '', '', 0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0`,
	`INSERT INTO rollup_day (company_id, day, late, rolled, closed, built) VALUES ($1, 1, 0, 0, 0, '')`,
	`INSERT INTO alert (company_id, id, project_id, amount, url, created_at) VALUES ($1, 'a', '', 1, 'u', 1)`,
	`INSERT INTO identity_provider (company_id, id, name, description, issuer, audience, enabled, jwks, discovery_url, attributes, created_at, updated_at)
		VALUES ($1, 'wip_1', 'p', '', 'https://issuer', 'a', true, '', '', '[]', 1, 1)`,
	`INSERT INTO federation_rule (company_id, id, provider_id, name, description, matchers, project_id, service_account_id, scopes, enabled, created_at, updated_at)
		VALUES ($1, 'rule_1', 'wip_1', '', '', '{}', 'p', 'a', 'null', true, 1, 1)`,
	`INSERT INTO alert_event (company_id, id, alert_id, amount, period, spent, created_at, tries, next_at, delivered_at, status)
		VALUES ($1, 'e', 'a', 1, 1, 1, 1, 0, 1, 0, 0)`,
	`INSERT INTO audit (company_id, id, created_at, type, actor, project_id, object) VALUES ($1, 'x', 1, 't', 'a', '', '')`,
	`INSERT INTO audit_link (company_id, seq, id, hash) VALUES ($1, 1, 'x', decode(repeat('00', 32), 'hex'))`,
	`INSERT INTO idempotency (company_id, claim, project_id, size, until, request, owner, state) VALUES ($1, 'claim', 'p', 0, 1, 'r', 'o', 'begun')`,
	`INSERT INTO response_owner (company_id, id, project_id, created_by, user_id, provider, credential_id, model, tokens, created_at, until)
		VALUES ($1, 'resp', 'p', 'k', 'u', 'v', 'c', 'm', 1, 1, 2)`,
	`INSERT INTO price (company_id, provider, model, spec, updated_at) VALUES ($1, 'p', 'm', '{}', 1)`,
	`INSERT INTO lent_grant (company_id, credential_id, created_at) VALUES ($1, 'c', 1)`,
	`INSERT INTO file (company_id, id, project_id, created_by, name, purpose, type, bytes, shared, status, created_at, expires_at)
		VALUES ($1, 'f', 'p', 'k', 'n', 'assistants', 't', 1, false, 'ready', 1, 0)`,
	`INSERT INTO vector_store (company_id, id, project_id, created_by, name, description, shared, metadata, expires_days, created_at, active_at, expires_at)
		VALUES ($1, 'v', 'p', 'k', 'n', '', false, '{}', 0, 1, 1, 0)`,
	`INSERT INTO file_batch (company_id, store_id, id, created_at) VALUES ($1, 'v', 'b', 1)`,
	`INSERT INTO store_file (company_id, store_id, file_id, batch_id, attributes, chunking, status, created_at, next_at)
		VALUES ($1, 'v', 'f', 'b', '{}', '{}', 'completed', 1, 0)`,
	`INSERT INTO chunk (company_id, store_id, file_id, place, text, embedder, vector) VALUES ($1, 'v', 'f', 0, 't', 'e', '')`,
	`INSERT INTO keyword_segment (company_id, store_id, file_id, version, words) VALUES ($1, 'v', 'f', 1, '')`,
	`INSERT INTO discard (company_id, store_id, file_id, next_at) VALUES ($1, 'v', 'g', 1)`,
	`INSERT INTO agent (company_id, id, project_id, created_by, slug, shared, version, definition, created_at, updated_at)
		VALUES ($1, 'a', 'p', 'k', 's', false, 1, '{}', 1, 1)`,
	`INSERT INTO agent_version (company_id, agent_id, version, created_by, definition, created_at) VALUES ($1, 'a', 1, 'k', '{}', 1)`,
	`INSERT INTO context (company_id, id, created_by, kind, text, created_at, updated_at) VALUES ($1, 'c', 'k', 'rules', 't', 1, 1)`,
	`INSERT INTO conversation (company_id, id, project_id, created_by, agent_id, user_id, bound, metadata, version, last_seq, items, bytes, created_at, active_at)
		VALUES ($1, 'c', 'p', 'k', '', '', true, '{}', 1, 1, 1, 2, 1, 1)`,
	`INSERT INTO conversation_item (company_id, conversation_id, seq, id, turn, body, tokens, created_at) VALUES ($1, 'c', 1, 'i', 1, '{}', 1, 1)`,
	`INSERT INTO audit_head (company_id, count, hash, seal) VALUES ($1, 1, decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'))`,
}

// as runs fn in a transaction with the setting, which is not set if company is "".
func as(t *testing.T, c *pgx.Conn, company string, fn func(tx pgx.Tx) error) error {
	t.Helper()
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	if company != "" {
		if _, err := tx.Exec(t.Context(), `SELECT set_config('app.current_company_id', $1, true)`, company); err != nil {
			t.Fatal(err)
		}
	}
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit(t.Context())
}

// TestRowLevelSecurity does, as the gateway's user and past the gateway's
// statements, what no statement of the gateway does.
func TestRowLevelSecurity(t *testing.T) {
	d := migrated(t)
	ctx := t.Context()
	c, admin := pgtest.As(t, d.URL), pgtest.As(t, d.AdminURL)
	for _, company := range []string{"org-acme", "org-beta"} {
		err := as(t, c, company, func(tx pgx.Tx) error {
			for _, text := range rowsOf {
				if _, err := tx.Exec(ctx, text, company); err != nil {
					return fmt.Errorf("%s: %w", text, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	tables := store.CompanyTables()
	for _, table := range tables {
		testTableApart(t, c, admin, table)
	}
	t.Logf("%d tables", len(tables))

	// Switched off it is an error, not a way round.
	err := as(t, c, "org-acme", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL row_security = off`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `SELECT * FROM project`)
		return err
	})
	refused(t, "reading with row_security off", err)
	refused(t, "dropping a policy", run(ctx, c, `DROP POLICY project_of_company ON project`))
	refused(t, "TRUNCATE", run(ctx, c, `TRUNCATE entry`))
	refused(t, "becoming the owner", run(ctx, c, `SET ROLE bulkhead_owner`))
	refused(t, "changing what an operator did", run(ctx, c, `DELETE FROM operator_act`))

	// An operator sees the rows of table company, and changes none.
	err = as(t, c, "", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('app.operator_act', 'operator:x', true)`); err != nil {
			return err
		}
		for _, table := range tables {
			want := 0
			if table == "company" {
				want = 2
			}
			if n := count(t, tx, `SELECT count(*) FROM `+table); n != want {
				t.Errorf("an operator sees %d rows of %s, want %d", n, table, want)
			}
		}
		tag, err := tx.Exec(ctx, `UPDATE company SET name = 'changed'`)
		if tag.RowsAffected() != 0 {
			t.Error("an operator's transaction changes companies")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// testTableApart looks at one table with no company set, with one that has no
// rows, and with the other one that has.
func testTableApart(t *testing.T, c, admin *pgx.Conn, table string) {
	t.Helper()
	ctx := t.Context()
	if n := count(t, admin, `SELECT count(*) FROM `+table); n != 2 {
		t.Fatalf("%d rows of %s to look for", n, table)
	}
	var row string // acme's
	if err := admin.QueryRow(ctx, `SELECT to_jsonb(x)::text FROM `+table+` AS x WHERE company_id = 'org-acme'`).Scan(&row); err != nil {
		t.Fatal(err)
	}
	for _, company := range []string{"", "org-nobody", "org-beta", "' OR true --", "%"} {
		want := 0
		if company == "org-beta" {
			want = 1
		}
		err := as(t, c, company, func(tx pgx.Tx) error {
			if n := count(t, tx, `SELECT count(*) FROM `+table); n != want {
				t.Errorf("as %q %s has %d rows, want %d", company, table, n, want)
			}
			if n := count(t, tx, `SELECT count(*) FROM `+table+` WHERE company_id = 'org-acme'`); n != 0 {
				t.Errorf("as %q %s shows %d rows of acme", company, table, n)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		for _, text := range []string{
			`DELETE FROM ` + table + ` WHERE company_id = 'org-acme'`,
			`UPDATE ` + table + ` SET company_id = company_id WHERE company_id = 'org-acme'`,
		} {
			err := as(t, c, company, func(tx pgx.Tx) error {
				tag, err := tx.Exec(ctx, text)
				if tag.RowsAffected() != 0 {
					t.Errorf("as %q: %s changes %d rows", company, text, tag.RowsAffected())
				}
				return err
			})
			if err != nil && !((table == "audit" || table == "audit_link") && strings.HasPrefix(text, "UPDATE")) { // no right at all
				t.Errorf("as %q: %s: %s", company, text, err)
			}
		}
		err = as(t, c, company, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO `+table+` SELECT (jsonb_populate_record(NULL::`+table+`, $1::jsonb)).*`, row)
			return err
		})
		refused(t, fmt.Sprintf("as %q inserting acme's row into %s", company, table), err)
	}
	err := as(t, c, "org-acme", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE `+table+` SET company_id = 'org-beta'`)
		return err
	})
	refused(t, "giving a row of "+table+" away", err)
}

func run(ctx context.Context, c *pgx.Conn, text string) error {
	_, err := c.Exec(ctx, text)
	return err
}

func count(t *testing.T, c interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, text string) (n int) {
	t.Helper()
	if err := c.QueryRow(t.Context(), text).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// refused checks that the server has refused it for want of a right.
func refused(t *testing.T, what string, err error) {
	t.Helper()
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "42501" {
		t.Errorf("%s: error %v, want insufficient privilege", what, err)
	}
}
