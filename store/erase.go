package store

import (
	"context"
	"fmt"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// companyTable is a table with a company's content.
type companyTable struct {
	name         string
	empty, count statement
}

// companyTables are the tables that erasing a company empties, in an order in
// which none is referred to by a later one. The table company is the only
// other one with a company's rows: its row stays as the tombstone.
var companyTables = []companyTable{
	{"keyword_segment",
		statement{"keyword_segment_empty", `DELETE FROM keyword_segment WHERE company_id = $1`},
		statement{"keyword_segment_count", `SELECT count(*) FROM keyword_segment WHERE company_id = $1`}},
	{"chunk",
		statement{"chunk_empty", `DELETE FROM chunk WHERE company_id = $1`},
		statement{"chunk_count", `SELECT count(*) FROM chunk WHERE company_id = $1`}},
	{"store_file",
		statement{"store_file_empty", `DELETE FROM store_file WHERE company_id = $1`},
		statement{"store_file_count", `SELECT count(*) FROM store_file WHERE company_id = $1`}},
	{"file_batch",
		statement{"file_batch_empty", `DELETE FROM file_batch WHERE company_id = $1`},
		statement{"file_batch_count", `SELECT count(*) FROM file_batch WHERE company_id = $1`}},
	{"vector_store",
		statement{"vector_store_empty", `DELETE FROM vector_store WHERE company_id = $1`},
		statement{"vector_store_count", `SELECT count(*) FROM vector_store WHERE company_id = $1`}},
	{"discard",
		statement{"discard_empty", `DELETE FROM discard WHERE company_id = $1`},
		statement{"discard_count", `SELECT count(*) FROM discard WHERE company_id = $1`}},
	{"file",
		statement{"file_empty", `DELETE FROM file WHERE company_id = $1`},
		statement{"file_count", `SELECT count(*) FROM file WHERE company_id = $1`}},
	{"conversation_item",
		statement{"conversation_item_empty", `DELETE FROM conversation_item WHERE company_id = $1`},
		statement{"conversation_item_count", `SELECT count(*) FROM conversation_item WHERE company_id = $1`}},
	{"conversation",
		statement{"conversation_empty", `DELETE FROM conversation WHERE company_id = $1`},
		statement{"conversation_count", `SELECT count(*) FROM conversation WHERE company_id = $1`}},
	{"entry",
		statement{"entry_empty", `DELETE FROM entry WHERE company_id = $1`},
		statement{"entry_count", `SELECT count(*) FROM entry WHERE company_id = $1`}},
	{"idempotency",
		statement{"idempotency_empty", `DELETE FROM idempotency WHERE company_id = $1`},
		statement{"idempotency_count", `SELECT count(*) FROM idempotency WHERE company_id = $1`}},
	{"response_owner",
		statement{"response_owner_empty", `DELETE FROM response_owner WHERE company_id = $1`},
		statement{"response_owner_count", `SELECT count(*) FROM response_owner WHERE company_id = $1`}},
	{"rollup",
		statement{"rollup_empty", `DELETE FROM rollup WHERE company_id = $1`},
		statement{"rollup_count", `SELECT count(*) FROM rollup WHERE company_id = $1`}},
	{"rollup_day",
		statement{"rollup_day_empty", `DELETE FROM rollup_day WHERE company_id = $1`},
		statement{"rollup_day_count", `SELECT count(*) FROM rollup_day WHERE company_id = $1`}},
	{"alert_event",
		statement{"alert_event_empty", `DELETE FROM alert_event WHERE company_id = $1`},
		statement{"alert_event_count", `SELECT count(*) FROM alert_event WHERE company_id = $1`}},
	{"alert",
		statement{"alert_empty", `DELETE FROM alert WHERE company_id = $1`},
		statement{"alert_count", `SELECT count(*) FROM alert WHERE company_id = $1`}},
	{"federation_rule",
		statement{"federation_rule_empty", `DELETE FROM federation_rule WHERE company_id = $1`},
		statement{"federation_rule_count", `SELECT count(*) FROM federation_rule WHERE company_id = $1`}},
	{"identity_provider",
		statement{"identity_provider_empty", `DELETE FROM identity_provider WHERE company_id = $1`},
		statement{"identity_provider_count", `SELECT count(*) FROM identity_provider WHERE company_id = $1`}},
	{"api_key",
		statement{"api_key_empty", `DELETE FROM api_key WHERE company_id = $1`},
		statement{"api_key_count", `SELECT count(*) FROM api_key WHERE company_id = $1`}},
	{"session",
		statement{"session_empty", `DELETE FROM session WHERE company_id = $1`},
		statement{"session_count", `SELECT count(*) FROM session WHERE company_id = $1`}},
	{"group_member",
		statement{"group_member_empty", `DELETE FROM group_member WHERE company_id = $1`},
		statement{"group_member_count", `SELECT count(*) FROM group_member WHERE company_id = $1`}},
	{"role_grant",
		statement{"role_grant_empty", `DELETE FROM role_grant WHERE company_id = $1`},
		statement{"role_grant_count", `SELECT count(*) FROM role_grant WHERE company_id = $1`}},
	{"custom_role",
		statement{"custom_role_empty", `DELETE FROM custom_role WHERE company_id = $1`},
		statement{"custom_role_count", `SELECT count(*) FROM custom_role WHERE company_id = $1`}},
	{"invite",
		statement{"invite_empty", `DELETE FROM invite WHERE company_id = $1`},
		statement{"invite_count", `SELECT count(*) FROM invite WHERE company_id = $1`}},
	{"person_group",
		statement{"person_group_empty", `DELETE FROM person_group WHERE company_id = $1`},
		statement{"person_group_count", `SELECT count(*) FROM person_group WHERE company_id = $1`}},
	{"person",
		statement{"person_empty", `DELETE FROM person WHERE company_id = $1`},
		statement{"person_count", `SELECT count(*) FROM person WHERE company_id = $1`}},
	{"service_account",
		statement{"service_account_empty", `DELETE FROM service_account WHERE company_id = $1`},
		statement{"service_account_count", `SELECT count(*) FROM service_account WHERE company_id = $1`}},
	{"model_limit",
		statement{"model_limit_empty", `DELETE FROM model_limit WHERE company_id = $1`},
		statement{"model_limit_count", `SELECT count(*) FROM model_limit WHERE company_id = $1`}},
	{"project",
		statement{"project_empty", `DELETE FROM project WHERE company_id = $1`},
		statement{"project_count", `SELECT count(*) FROM project WHERE company_id = $1`}},
	{"agent_version",
		statement{"agent_version_empty", `DELETE FROM agent_version WHERE company_id = $1`},
		statement{"agent_version_count", `SELECT count(*) FROM agent_version WHERE company_id = $1`}},
	{"agent",
		statement{"agent_empty", `DELETE FROM agent WHERE company_id = $1`},
		statement{"agent_count", `SELECT count(*) FROM agent WHERE company_id = $1`}},
	{"context",
		statement{"context_empty", `DELETE FROM context WHERE company_id = $1`},
		statement{"context_count", `SELECT count(*) FROM context WHERE company_id = $1`}},
	{"budget",
		statement{"budget_empty", `DELETE FROM budget WHERE company_id = $1`},
		statement{"budget_count", `SELECT count(*) FROM budget WHERE company_id = $1`}},
	{"price",
		statement{"price_empty", `DELETE FROM price WHERE company_id = $1`},
		statement{"price_count", `SELECT count(*) FROM price WHERE company_id = $1`}},
	{"route",
		statement{"route_empty", `DELETE FROM route WHERE company_id = $1`},
		statement{"route_count", `SELECT count(*) FROM route WHERE company_id = $1`}},
	{"credential",
		statement{"credential_empty", `DELETE FROM credential WHERE company_id = $1`},
		statement{"credential_count", `SELECT count(*) FROM credential WHERE company_id = $1`}},
	{"credential_name",
		statement{"credential_name_empty", `DELETE FROM credential_name WHERE company_id = $1`},
		statement{"credential_name_count", `SELECT count(*) FROM credential_name WHERE company_id = $1`}},
	{"lent_grant",
		statement{"lent_grant_empty", `DELETE FROM lent_grant WHERE company_id = $1`},
		statement{"lent_grant_count", `SELECT count(*) FROM lent_grant WHERE company_id = $1`}},
	{"data_key",
		statement{"data_key_empty", `DELETE FROM data_key WHERE company_id = $1`},
		statement{"data_key_count", `SELECT count(*) FROM data_key WHERE company_id = $1`}},
	{"audit_head", // these three only while the company's status is erasing: see the triggers
		statement{"audit_head_empty", `DELETE FROM audit_head WHERE company_id = $1`},
		statement{"audit_head_count", `SELECT count(*) FROM audit_head WHERE company_id = $1`}},
	{"audit_link",
		statement{"audit_link_empty", `DELETE FROM audit_link WHERE company_id = $1`},
		statement{"audit_link_count", `SELECT count(*) FROM audit_link WHERE company_id = $1`}},
	{"audit",
		statement{"audit_empty", `DELETE FROM audit WHERE company_id = $1`},
		statement{"audit_count", `SELECT count(*) FROM audit WHERE company_id = $1`}},
}

// companyTableNames returns the names of all tables with a company's content.
func companyTableNames() []string {
	names := []string{"company"}
	for _, t := range companyTables {
		names = append(names, t.name)
	}
	return names
}

var companyTombstoned = statement{"company_tombstoned",
	`UPDATE company SET name = '', status = 'erased', limits = '{}', generation = $2, erased_at = $3, erased_rows = $4,
		rolled_until = 0, degraded_nano = 0, degraded_requests = 0, embedding_model = '', memory_days = -1
	WHERE company_id = $1`}

// EraseCompany implements web.Registry. The audit rows go with the company;
// what stays is the operator's act and the tombstone with the counts.
func (db *DB) EraseCompany(ctx context.Context, a tenant.Act, s tenant.Scope) (map[string]int64, error) {
	removed := map[string]int64{}
	err := db.policy(ctx, s.ID().String(), a.Actor(), func(t *tx) error {
		t.act = true
		switch c, err := t.companyInfo(t.company); {
		case err != nil:
			return err
		case c.Status != tenant.Erasing:
			return fault.New(fault.Conflict, "The company must be set to %q before it is erased.", tenant.Erasing)
		}
		for _, table := range companyTables {
			n, err := t.exec(table.empty)
			if err != nil {
				return err
			}
			removed[table.name] = n
		}
		for _, table := range companyTables {
			var left int64
			if err := t.one(table.count, []any{&left}); err != nil {
				return err
			}
			if left != 0 {
				return fmt.Errorf("table %s still has %d rows of the company", table.name, left)
			}
		}
		for _, st := range []globalStatement{upkeepGone, audiencesGone} {
			if _, err := t.exec(st, t.company); err != nil {
				return err
			}
		}
		generation, err := t.bump()
		if err != nil {
			return err
		}
		return must(t.exec(companyTombstoned, generation, micros(t.now), asJSON(removed)))
	})
	if err != nil {
		return nil, err
	}
	if err := db.d.scrub(ctx); err != nil {
		return removed, fmt.Errorf("the company is erased, but copies may be left in the database's files: %w", err)
	}
	return removed, nil
}
