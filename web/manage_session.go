package web

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// sessionCookie is where a person's secret is. A browser keeps a cookie with this
// beginning to one host, one path and encrypted connections; it takes http on
// localhost for one.
const sessionCookie = "__Host-bulkhead"

// csrfHeader must hold the token that goes with the session, where a request
// changes something: a page of another site can make a browser send the cookie,
// and not this.
const csrfHeader = "X-Csrf-Token"

var (
	errCSRF    = fault.New(fault.Forbidden, "A request with a session that changes something needs the header X-CSRF-Token, with what GET /v1/sessions/current says.").WithCode("csrf_token_required")
	errTwoWays = fault.New(fault.Invalid, "The request has an API key and a session. Send one of them.").WithCode("two_credentials")
)

// secretOf is the secret of the session that a request is made with; nil without.
func secretOf(rc *fasthttp.RequestCtx) []byte { return rc.Request.Header.Cookie(sessionCookie) }

// authenticate proves who a management request is by: a key, or a session.
func (g *Gateway) authenticate(r *request, rt *route) (s tenant.Scope, err error) {
	key, secret := apiKey(r.rc), secretOf(r.rc)
	switch {
	case len(secret) == 0:
		return g.Tenants.Authenticate(r.ctx, key)
	case len(key) > 0:
		return s, errTwoWays
	}
	if s, err = g.Tenants.AuthenticateSession(r.ctx, secret); err != nil {
		return s, err
	}
	if rt.method != fasthttp.MethodGet && !g.Tenants.Minter().ProvesCSRF(secret, r.rc.Request.Header.Peek(csrfHeader)) {
		return s, errCSRF
	}
	return s, nil
}

// sessionObject is a login that has not ended.
type sessionObject struct {
	ID         string `json:"id"`
	Object     string `json:"object"`
	Agent      string `json:"user_agent"`
	CreatedAt  int64  `json:"created_at"`
	LastSeenAt int64  `json:"last_seen_at"`
	ExpiresAt  int64  `json:"expires_at"`
	Current    bool   `json:"current"`
}

func toSession(s tenant.Session, current string) sessionObject {
	return sessionObject{s.Key.ID, "session", s.Agent, s.Key.CreatedAt.Unix(), s.SeenAt.Unix(), s.Key.ExpiresAt.Unix(), s.Key.ID == current}
}

// currentObject is who is logged in and what they may do.
type currentObject struct {
	Object       string           `json:"object"`
	CSRF         string           `json:"csrf_token"`
	Organization companyName      `json:"organization"`
	User         userObject       `json:"user"`
	Permissions  []string         `json:"permissions"` // in the company, and so in all projects
	Projects     []currentProject `json:"projects"`    // where there are more
	SessionID    string           `json:"session_id"`
	ExpiresAt    int64            `json:"expires_at"`
}

type companyName struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type currentProject struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
}

func (g *Gateway) toCurrent(s tenant.Scope, k tenant.Key, secret []byte) currentObject {
	c, u := s.Company(), s.User()
	out := currentObject{Object: "session.current", CSRF: g.Tenants.Minter().CSRF(secret), Organization: companyName{c.ID().String(), c.Name}, User: toUser(*u),
		Permissions: s.Grants().Company.Names(), Projects: []currentProject{}, SessionID: k.ID, ExpiresAt: k.ExpiresAt.Unix()}
	for _, id := range slices.Sorted(maps.Keys(s.Grants().Projects)) {
		if p := c.Projects[id]; p != nil {
			out.Projects = append(out.Projects, currentProject{id, p.Name, s.Grants().In(id).Names()})
		}
	}
	return out
}

// maxAgent bounds what is kept of a browser's name, in bytes.
const maxAgent = 200

// login begins a session. What is wrong is not told: see tenant.Directory.Login.
func (g *Gateway) login(r *request) (any, error) {
	var b struct {
		Organization string `json:"organization"`
		Email        string `json:"email"`
		Password     string `json:"password"`
	}
	// A page of another site could send a form, and so put its reader into a session
	// that is not theirs; it cannot send this type without asking.
	if kind, _, _ := strings.Cut(string(r.rc.Request.Header.ContentType()), ";"); !strings.EqualFold(strings.TrimSpace(kind), "application/json") {
		return nil, fault.New(fault.Invalid, "A login must have the header Content-Type: application/json.").WithCode("content_type_required")
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	for _, f := range []struct{ name, value string }{{"organization", b.Organization}, {"email", b.Email}, {"password", b.Password}} {
		if f.value == "" {
			return nil, fault.Field(f.name, "%s is required.", f.name)
		}
	}
	s, claim, err := g.Tenants.Login(r.ctx, tenant.Login{Company: b.Organization, Email: b.Email, Password: b.Password, Address: r.address()})
	if err != nil {
		if claim.Company.String() != "" {
			g.Audit.LoginFailed(claim.Company, claim.UserID)
		}
		return nil, err
	}
	secret, k := g.Tenants.Minter().Mint(s, tenant.KeySession)
	k.CreatedAt = g.now()
	k.ExpiresAt = k.CreatedAt.Add(tenant.SessionLife)
	agent := string(r.rc.Request.Header.UserAgent())
	one := tenant.Session{Key: k, UserID: s.UserID(), Agent: strings.ToValidUTF8(agent[:min(len(agent), maxAgent)], ""), SeenAt: k.CreatedAt}
	if err := g.Registry.CreateSession(r.ctx, s, one); err != nil {
		return nil, err
	}
	setSession(r.rc, secret, tenant.SessionLife)
	return g.toCurrent(s, k, []byte(secret)), nil
}

// address is where the client is, behind the proxies that the operator trusts.
func (r *request) address() string { return r.settings.clientAddr(r.rc).String() }

// setSession gives the browser its secret, or with "" takes it away.
func setSession(rc *fasthttp.RequestCtx, secret string, life time.Duration) {
	c := fasthttp.AcquireCookie()
	defer fasthttp.ReleaseCookie(c)
	c.SetKey(sessionCookie)
	c.SetValue(secret)
	c.SetPath("/")
	c.SetSecure(true)
	c.SetHTTPOnly(true)
	c.SetSameSite(fasthttp.CookieSameSiteLaxMode)
	if secret == "" {
		c.SetExpire(fasthttp.CookieExpireDelete)
	} else {
		c.SetMaxAge(int(life / time.Second))
	}
	rc.Response.Header.SetCookie(c)
	rc.Response.Header.Set("Cache-Control", "no-store")
}

func (g *Gateway) listSessions(r *request) (any, error) {
	all, err := g.Registry.Sessions(r.ctx, r.scope)
	return listNext(r, all, err, groupPage, func(s tenant.Session) string { return s.Key.ID },
		func(s tenant.Session) sessionObject { return toSession(s, r.scope.KeyID()) })
}

func (g *Gateway) getCurrentSession(r *request) (any, error) {
	r.rc.Response.Header.Set("Cache-Control", "no-store")
	return g.toCurrent(r.scope, *r.scope.Key(), secretOf(r.rc)), nil
}

// endSession logs out: of the session that asks, by "current" or its id, or of
// another one of the same user.
func (g *Gateway) endSession(r *request) (any, error) {
	id := r.param("session")
	if id == "current" {
		id = r.scope.KeyID()
	}
	if err := g.Registry.EndSession(r.ctx, r.scope, id); err != nil {
		return nil, err
	}
	if id == r.scope.KeyID() {
		setSession(r.rc, "", 0)
	}
	return deleted{id, "session.deleted", true}, nil
}

// changePassword ends the user's other sessions: who had the old password is out.
func (g *Gateway) changePassword(r *request) (any, error) {
	var b struct {
		Current string `json:"current_password"`
		New     string `json:"new_password"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if err := tenant.CheckPassword("new_password", b.New); err != nil {
		return nil, err
	}
	if err := g.Tenants.Confirm(r.ctx, r.scope, b.Current, r.address()); err != nil {
		return nil, err
	}
	password, err := g.Tenants.HashPassword(r.ctx, b.New)
	if err != nil {
		return nil, err
	}
	return struct {
		Object  string `json:"object"`
		Changed bool   `json:"changed"`
	}{"session.password.changed", true}, g.Registry.SetPassword(r.ctx, r.scope, password, r.scope.KeyID())
}
