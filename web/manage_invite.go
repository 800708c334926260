package web

import (
	"net/mail"
	"strings"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// inviteObject is OpenAI's invite object. token and accept_path are this
// gateway's own: it sends no email, so who invites hands the token on.
type inviteObject struct {
	ID         string                 `json:"id"`
	Object     string                 `json:"object"`
	Email      string                 `json:"email"`
	Role       string                 `json:"role"`
	Status     string                 `json:"status"`
	CreatedAt  int64                  `json:"created_at"`
	ExpiresAt  int64                  `json:"expires_at"`
	AcceptedAt *int64                 `json:"accepted_at"`
	Projects   []tenant.InviteProject `json:"projects"`
	Token      string                 `json:"token,omitempty"` // in the answer that makes it
	AcceptPath string                 `json:"accept_path,omitempty"`
}

const acceptPath = "/v1/organization/invites/accept"

func (g *Gateway) toInvite(i tenant.Invite) inviteObject {
	o := inviteObject{ID: i.Key.ID, Object: "organization.invite", Email: i.Email, Role: openaiRole(i.Role), Status: "pending",
		CreatedAt: i.Key.CreatedAt.Unix(), ExpiresAt: i.Key.ExpiresAt.Unix(), AcceptedAt: unixTime(i.AcceptedAt), Projects: i.Projects}
	switch {
	case o.AcceptedAt != nil:
		o.Status = "accepted"
	case !g.now().Before(i.Key.ExpiresAt):
		o.Status = "expired"
	}
	if o.Projects == nil {
		o.Projects = []tenant.InviteProject{}
	}
	return o
}

// maxEmail is the longest address, in bytes: RFC 5321, 4.5.3.1.
const maxEmail = 254

// checkEmail returns an address as it is stored.
func checkEmail(field, email string) (string, error) {
	email = strings.ToLower(strings.TrimSpace(email))
	a, err := mail.ParseAddress(email)
	if err != nil || a.Address != email || len(email) > maxEmail || strings.ContainsAny(email, "\x00\x1f\r\n") {
		return "", fault.Field(field, "%s must be an email address.", field)
	}
	return email, nil
}

// newInvite makes an invite into the company of s, and its token.
func (g *Gateway) newInvite(s tenant.Scope, email, role string, projects []tenant.InviteProject) (tenant.Invite, string) {
	token, k := g.Tenants.Minter().Mint(s, tenant.KeyInvite)
	k.CreatedAt = g.now()
	k.ExpiresAt = k.CreatedAt.Add(tenant.InviteLife)
	return tenant.Invite{Key: k, Email: email, Role: role, Projects: projects}, token
}

func (g *Gateway) listInvites(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	items, more, err := g.Registry.Invites(r.ctx, r.scope, p)
	return listed(p, items, more, err, g.toInvite, func(o inviteObject) string { return o.ID })
}

func (g *Gateway) getInvite(r *request) (any, error) {
	i, err := g.Registry.LoadInvite(r.ctx, r.scope.ID(), r.param("invite"))
	if err != nil {
		return nil, err
	}
	return g.toInvite(*i), nil
}

// maxPendingInvites bounds how many invites of a company wait to be accepted, those
// too whose time is over.
const maxPendingInvites = 1000

// maxInviteProjects bounds the projects of one invite.
const maxInviteProjects = 100

func (g *Gateway) createInvite(r *request) (any, error) {
	var b struct {
		Email    string                 `json:"email"`
		Role     string                 `json:"role"`
		Projects []tenant.InviteProject `json:"projects"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	email, err := checkEmail("email", b.Email)
	if err != nil {
		return nil, err
	}
	role, ok := tenant.BuiltInRoleNamed(b.Role, false)
	if !ok {
		return nil, fault.Field("role", "role must be owner, manager or reader.")
	}
	if len(b.Projects) > maxInviteProjects {
		return nil, fault.Field("projects", "projects has more than %d values.", maxInviteProjects)
	}
	seen := map[string]bool{}
	for _, p := range b.Projects {
		if _, ok := tenant.BuiltInRoleNamed(p.Role, true); !ok {
			return nil, fault.Field("projects", "The role in a project must be owner, manager or member.")
		}
		if r.scope.Company().Projects[p.ID] == nil || seen[p.ID] {
			return nil, fault.Field("projects", "projects must name projects of your company, each once.")
		}
		seen[p.ID] = true
	}
	i, token := g.newInvite(r.scope, email, role.Name, b.Projects)
	o := g.toInvite(i)
	o.Token, o.AcceptPath = token, acceptPath
	return o, g.Registry.CreateInvite(r.ctx, r.scope, i, maxPendingInvites)
}

func (g *Gateway) deleteInvite(r *request) (any, error) {
	id := r.param("invite")
	return deleted{id, "organization.invite.deleted", true}, g.Registry.DeleteInvite(r.ctx, r.scope, id)
}

// acceptInvite makes a user of who has an invite's token, with the password that
// they choose.
func (g *Gateway) acceptInvite(r *request) (any, error) {
	var b struct {
		Token    string `json:"token"`
		Name     string `json:"name"`
		Password string `json:"password"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	s, _, err := g.Tenants.Invited(r.ctx, []byte(b.Token))
	if err != nil {
		return nil, err
	}
	name, err := checkName("name", b.Name)
	if err != nil {
		return nil, err
	}
	if err := tenant.CheckPassword("password", b.Password); err != nil {
		return nil, err
	}
	password, err := g.Tenants.HashPassword(r.ctx, b.Password)
	if err != nil {
		return nil, err
	}
	u, err := g.Registry.AcceptInvite(r.ctx, s, tenant.User{ID: openai.NewID("user_"), Name: name, CreatedAt: g.now()}, password)
	if err != nil {
		return nil, err
	}
	return struct {
		userObject
		Organization string `json:"organization"` // what to log in to
	}{toUser(u), s.ID().String()}, nil
}
