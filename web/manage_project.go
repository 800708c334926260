package web

import (
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// projectObject is OpenAI's project object, with the project's limits beside.
type projectObject struct {
	ID         string         `json:"id"`
	Object     string         `json:"object"`
	Name       string         `json:"name"`
	CreatedAt  int64          `json:"created_at"`
	ArchivedAt *int64         `json:"archived_at"`
	Status     string         `json:"status"`
	Limits     *tenant.Limits `json:"limits,omitempty"`
}

func toProject(p tenant.Project) projectObject {
	o := projectObject{ID: p.ID, Object: "organization.project", Name: p.Name, CreatedAt: p.CreatedAt.Unix(), ArchivedAt: unixTime(p.ArchivedAt), Status: "active"}
	if o.ArchivedAt != nil {
		o.Status = "archived"
	}
	if !p.Limits.Zero() {
		o.Limits = &p.Limits
	}
	return o
}

// unixTime returns t in seconds, nil for the zero time.
func unixTime(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	n := t.Unix()
	return &n
}

// page of a management list: limits are OpenAI's.
const (
	pageDefault = 20
	pageMost    = 100
)

// listed returns a page in the form of the API. A cursor that does not exist is
// the client's mistake, and not an object that is missing.
func listed[T, O any](p openai.Page, items []T, more bool, err error, to func(T) O, id func(O) string) (any, error) {
	if errors.Is(err, tenant.ErrNotFound) && (p.After != "" || p.Before != "") {
		name := "after"
		if p.After == "" {
			name = "before"
		}
		return nil, fault.Field(name, "No object of this list has this id.")
	}
	if err != nil {
		return nil, err
	}
	out := make([]O, len(items))
	for i, it := range items {
		out[i] = to(it)
	}
	return openai.NewList(out, id, more), nil
}

// maxName bounds the names people give to things, in bytes.
const maxName = 256

// checkName returns a name without space around it.
func checkName(field, name string) (string, error) {
	name = strings.TrimSpace(name)
	switch {
	case name == "":
		return "", fault.Field(field, "%s must not be empty.", field)
	case len(name) > maxName:
		return "", fault.Field(field, "%s must be at most %d bytes.", field, maxName)
	case strings.ContainsFunc(name, unicode.IsControl):
		return "", fault.Field(field, "%s must not hold control characters.", field)
	}
	return name, nil
}

// maxLimit bounds a limit: above it there is none.
const maxLimit = 1_000_000_000_000

func checkLimits(l *tenant.Limits) error {
	if l == nil {
		return nil
	}
	for _, n := range []struct {
		name string
		v    int64
	}{{"requests_per_minute", l.RequestsPerMinute}, {"tokens_per_minute", l.TokensPerMinute}, {"concurrent_requests", l.Concurrent}} {
		if n.v < 0 || n.v > maxLimit {
			return fault.Field("limits."+n.name, "%s must be a whole number from 0 (no limit) to %d.", n.name, int64(maxLimit))
		}
	}
	return nil
}

func (g *Gateway) listProjects(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	items, more, err := g.Registry.Projects(r.ctx, r.scope, p, r.query("include_archived") == "true")
	return listed(p, items, more, err, toProject, func(o projectObject) string { return o.ID })
}

func (g *Gateway) getProject(r *request) (any, error) {
	p, err := g.Registry.Project(r.ctx, r.scope, r.param("project"))
	return toProject(p), err
}

// projectBody is what a project can be made or changed with. Fields of OpenAI's
// that have no meaning here are not in it: they are refused by name.
type projectBody struct {
	Name   *string        `json:"name"`
	Limits *tenant.Limits `json:"limits"`
}

func (g *Gateway) createProject(r *request) (any, error) {
	var b projectBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	p := tenant.Project{ID: openai.NewID("proj_"), CreatedAt: g.now()}
	if b.Name == nil {
		return nil, fault.Field("name", "name is required.")
	}
	var err error
	if p.Name, err = checkName("name", *b.Name); err != nil {
		return nil, err
	}
	if err := checkLimits(b.Limits); err != nil {
		return nil, err
	}
	if b.Limits != nil {
		p.Limits = *b.Limits
	}
	return toProject(p), g.Registry.CreateProject(r.ctx, r.scope, p)
}

// active returns the project of the path, for a change: an archived one is
// left as it is.
func (g *Gateway) active(r *request) (tenant.Project, error) {
	p, err := g.Registry.Project(r.ctx, r.scope, r.param("project"))
	if err == nil && !p.ArchivedAt.IsZero() {
		err = fault.New(fault.Invalid, "The project is archived.").WithCode("project_archived")
	}
	return p, err
}

func (g *Gateway) updateProject(r *request) (any, error) {
	var b projectBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	p, err := g.active(r)
	if err != nil {
		return nil, err
	}
	if b.Name != nil {
		if p.Name, err = checkName("name", *b.Name); err != nil {
			return nil, err
		}
	}
	if b.Limits != nil {
		if err := checkLimits(b.Limits); err != nil {
			return nil, err
		}
		p.Limits = *b.Limits
	}
	p, err = g.Registry.UpdateProject(r.ctx, r.scope, p.ID, p.Name, p.Limits)
	return toProject(p), err
}

func (g *Gateway) archiveProject(r *request) (any, error) {
	p, err := g.Registry.ArchiveProject(r.ctx, r.scope, r.param("project"))
	return toProject(p), err
}

// permissionObject is OpenAI's project model permissions object.
type permissionObject struct {
	Object   string                `json:"object"`
	Mode     tenant.PermissionMode `json:"mode"`
	ModelIDs []string              `json:"model_ids"`
}

func toPermission(m tenant.ModelPermission) permissionObject {
	o := permissionObject{"project.model_permissions", m.Mode, m.Models}
	if m.Mode == tenant.AllowAll { // a list that denies nothing says the same
		o.Mode = tenant.DenyList
	}
	if o.ModelIDs == nil {
		o.ModelIDs = []string{}
	}
	return o
}

func (g *Gateway) getModelPermissions(r *request) (any, error) {
	p, err := g.Registry.Project(r.ctx, r.scope, r.param("project"))
	return toPermission(p.Permission), err
}

// maxModelIDs bounds a list of model permissions.
const maxModelIDs = 1000

func (g *Gateway) updateModelPermissions(r *request) (any, error) {
	var b struct {
		Mode     tenant.PermissionMode `json:"mode"`
		ModelIDs []string              `json:"model_ids"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	switch {
	case b.Mode != tenant.AllowList && b.Mode != tenant.DenyList:
		return nil, fault.Field("mode", "mode must be allow_list or deny_list.")
	case b.ModelIDs == nil:
		return nil, fault.Field("model_ids", "model_ids is required.")
	case len(b.ModelIDs) > maxModelIDs:
		return nil, fault.Field("model_ids", "model_ids has more than %d names.", maxModelIDs)
	}
	for _, m := range b.ModelIDs {
		if _, err := checkName("model_ids", m); err != nil {
			return nil, err
		}
	}
	p, err := g.active(r)
	if err != nil {
		return nil, err
	}
	slices.Sort(b.ModelIDs)
	m := tenant.ModelPermission{Mode: b.Mode, Models: slices.Compact(b.ModelIDs)}
	return toPermission(m), g.Registry.SetModelPermission(r.ctx, r.scope, p.ID, m)
}

func (g *Gateway) deleteModelPermissions(r *request) (any, error) {
	p, err := g.active(r)
	if err != nil {
		return nil, err
	}
	return deleted{Object: "project.model_permissions.deleted", Deleted: true},
		g.Registry.SetModelPermission(r.ctx, r.scope, p.ID, tenant.ModelPermission{})
}

// deleted is the answer to a DELETE.
type deleted struct {
	ID      string `json:"id,omitempty"`
	Object  string `json:"object"`
	Deleted bool   `json:"deleted"`
}
