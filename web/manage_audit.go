package web

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
)

// eventObject is OpenAI's audit log object. What was done stands in a member
// that is named as the type.
type eventObject struct {
	audit.Record
	company string
}

// MarshalJSON writes the object with its member of a changing name.
func (o eventObject) MarshalJSON() ([]byte, error) {
	e := &o.Record
	said := map[string]any{}
	if e.Detail != "" {
		if err := json.Unmarshal([]byte(e.Detail), &said); err != nil {
			return nil, fmt.Errorf("the details of audit row %s are no JSON: %w", e.ID, err)
		}
	}
	said["id"] = e.Object
	if e.Type == audit.AccessDenied || e.Type == audit.ContentRead {
		said["count"] = e.Count
	}
	out := map[string]any{"id": e.ID, "type": e.Type, "effective_at": e.At.Unix(), "actor": o.actor(), string(e.Type): said}
	if e.ProjectID != "" {
		out["project"] = map[string]any{"id": e.ProjectID, "name": e.ProjectName}
	}
	return json.Marshal(out)
}

// actor is who did it: a person in a session, or a key; an admin key acts for the
// company, as toAdminKey has it. operator, proved and invite are this gateway's own.
func (o eventObject) actor() map[string]any {
	by, id := audit.KeyOf(o.Actor)
	switch by {
	case audit.ByUser:
		return map[string]any{"type": "session", "session": map[string]any{"user": map[string]any{"id": id, "email": o.UserEmail}}}
	case audit.ByInvite:
		return map[string]any{"type": "session", "invite": map[string]any{"id": id}}
	}
	actor := map[string]any{"type": "api_key"}
	key := map[string]any{"id": id}
	switch {
	case by == audit.ByOperator, by == "" && id != audit.Unknown:
		actor["operator"] = true
	case by == audit.ByClaim:
		actor["proved"] = false
	case id == audit.Unknown:
		actor["proved"] = false
		delete(key, "id")
	case o.AccountID != "":
		key["type"], key["service_account"] = "service_account", map[string]any{"id": o.AccountID}
	default:
		key["type"], key["user"] = "user", map[string]any{"id": o.company}
	}
	actor["api_key"] = key
	return actor
}

// listAuditLogs lists what was done in the company, newest first.
func (g *Gateway) listAuditLogs(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	if !p.Desc {
		return nil, fault.Field("order", "Audit logs are listed newest first.")
	}
	f, err := auditFilter(r)
	if err != nil {
		return nil, err
	}
	if emails := r.values("actor_emails[]"); len(emails) > 0 {
		if f.Actors, err = g.usersAmong(r, emails); err != nil {
			return nil, err
		}
	}
	items, more, err := g.Registry.AuditEvents(r.ctx, r.scope, f, p)
	if err == nil {
		g.Audit.Read(audit.Proved(r.scope), "audit_log")
	}
	company := r.scope.ID().String()
	to := func(e audit.Record) eventObject { return eventObject{e, company} }
	return listed(p, items, more, err, to, func(o eventObject) string { return o.ID })
}

// usersAmong returns the ids of the users with these addresses; "" if there are none,
// which no event is of.
func (g *Gateway) usersAmong(r *request, emails []string) ([]string, error) {
	for i := range emails {
		emails[i] = strings.ToLower(emails[i])
	}
	users, _, err := g.Registry.Users(r.ctx, r.scope, emails, openai.Page{Limit: maxFilter})
	ids := []string{""}
	for _, u := range users {
		ids = append(ids, u.ID)
	}
	return ids, err
}

// maxFilter bounds the values of one parameter of a filter.
const maxFilter = 100

func auditFilter(r *request) (f audit.Filter, err error) {
	for _, list := range []struct {
		name string
		to   *[]string
	}{
		{"event_types[]", &f.Types}, {"project_ids[]", &f.Projects}, {"resource_ids[]", &f.Objects},
		{"actor_ids[]", &f.Actors}, {"actor_emails[]", new([]string)},
	} {
		*list.to = r.values(list.name)
		if len(*list.to) > maxFilter {
			return f, fault.Field(list.name, "%s has more than %d values.", list.name, maxFilter)
		}
		for _, v := range *list.to {
			if v == "" || len(v) > maxName {
				return f, fault.Field(list.name, "A value of %s must have 1 to %d bytes.", list.name, maxName)
			}
		}
	}
	switch r.query("tenant_only") {
	case "", "false":
	default:
		return f, fault.Field("tenant_only", "There are no events of a tenant above the organization here.")
	}
	f.From, f.Until, err = effectiveAt(r)
	return f, err
}

// effectiveAt reads the bounds of the time, in whole Unix seconds. An event has
// the second it happened in.
func effectiveAt(r *request) (from, until time.Time, err error) {
	for _, bound := range []struct {
		name string
		late bool  // it bounds the end
		add  int64 // seconds, to begin from or end before
	}{{"gt", false, 1}, {"gte", false, 0}, {"lt", true, 0}, {"lte", true, 1}} {
		name := "effective_at[" + bound.name + "]"
		text := r.query(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || n > maxUnix {
			return from, until, fault.Field(name, "%s must be a time in whole Unix seconds.", name)
		}
		switch at := time.Unix(n+bound.add, 0); {
		case bound.late && (until.IsZero() || at.Before(until)):
			until = at
		case !bound.late && at.After(from):
			from = at
		}
	}
	return from, until, nil
}

// maxUnix is the latest time that can be asked for, in the year 9999.
const maxUnix = 253_402_300_799

// values returns a parameter of the query that may stand there many times.
func (r *request) values(name string) (all []string) {
	for _, v := range r.rc.QueryArgs().PeekMulti(name) {
		all = append(all, string(v))
	}
	return all
}
