package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// A response is an answer that its provider keeps under an id, for whoever has the
// company's credential: whose it is within the company, only the gateway knows. So
// it notes the id before the client learns it, and whatever names one is refused
// unless it is the caller's, and goes to the provider that has it, with the
// credential that it was made with.

// Responses notes whose the responses are. The errors of stores that are away may
// be any; a response that is another company's, or not there any more, is
// tenant.ErrNotFound.
type Responses interface {
	Response(ctx context.Context, s tenant.Scope, id string) (tenant.Response, error)
	// PutResponse notes r. Of one that is there it sets Tokens, if it is the same
	// caller's and of the same credential; else it changes nothing.
	PutResponse(ctx context.Context, s tenant.Scope, r tenant.Response) error
	DeleteResponse(ctx context.Context, s tenant.Scope, id string) error
}

// noteTimeout bounds the time for which an answer waits for its id to be noted.
// If it cannot be, the client has the answer all the same.
const noteTimeout = 2 * time.Second

var (
	errNoPrevious   = errOfField(fault.NotFound, "previous_response_id", "previous_response_not_found", "There is no such response, or it is not yours.")
	errBackground   = errOfField(fault.Invalid, "background", "field_not_supported", "Background responses are not served: nothing would be there to hold and bill what they cost. Ask without, or for a stream.")
	errConversation = errOfField(fault.Invalid, "conversation", "field_not_supported", "Conversations of the provider are not passed on: it is not known whose they are. Use previous_response_id.")
)

func errOfField(kind fault.Kind, param, code, message string) *fault.Error {
	f := fault.New(kind, "%s", message).WithCode(code)
	f.Param = param
	return f
}

// ownResponse returns a response of the caller's. One that is somebody else's, and
// one that never was, is tenant.ErrNotFound.
func (g *Gateway) ownResponse(ctx context.Context, s tenant.Scope, id string) (tenant.Response, error) {
	if g.Responses == nil || !openai.ResponseID(id) {
		return tenant.Response{}, tenant.ErrNotFound
	}
	r, err := g.Responses.Response(ctx, s, id)
	switch {
	case errors.Is(err, tenant.ErrNotFound):
		return r, tenant.ErrNotFound
	case err != nil:
		f := fault.Wrap(fault.Unavailable, err, "The gateway cannot see at the moment whose this response is. Nothing was sent; try again.")
		f.RetryAfter = time.Second
		return r, f
	case !s.Owns(r):
		return tenant.Response{}, tenant.ErrNotFound
	}
	return r, nil
}

// goOn finds out what the response goes on from.
func (c *call) goOn() error {
	r := c.request
	switch {
	case c.endpoint != openai.Responses:
		return nil
	case r.Later:
		return errBackground
	case r.Conversation:
		return errConversation
	case r.Previous == "":
		return nil
	}
	p, err := c.g.ownResponse(c.ctx, c.scope, r.Previous)
	if errors.Is(err, tenant.ErrNotFound) {
		return errNoPrevious
	}
	if err != nil {
		return err
	}
	c.previous = &p
	r.AfterPrevious(p.Tokens)
	return nil
}

// stay leaves of the targets those that have the response that the call goes on
// from.
func (c *call) stay() error {
	if c.previous == nil {
		return nil
	}
	c.targets = slices.DeleteFunc(c.targets, func(t provider.Target) bool { return t.Lent || t.Provider != c.previous.Provider })
	if len(c.targets) == 0 {
		return errOfField(fault.Invalid, "previous_response_id", "previous_response_elsewhere", "The response that this one goes on from is kept by another provider than the one that serves this model.")
	}
	return nil
}

// noteResponse notes whose the response is that is being answered. tokens is 0
// while it is not known.
func (c *call) noteResponse(a *attempt, id string, tokens int64) {
	if id == "" || !c.request.Store || c.g.Responses == nil || !openai.ResponseID(id) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), noteTimeout)
	defer cancel()
	now := c.g.now().UTC().Truncate(time.Microsecond)
	err := c.g.Responses.PutResponse(ctx, c.scope, tenant.Response{
		ID: id, Project: c.scope.ProjectID(), CreatedBy: c.scope.KeyID(), User: c.user, Provider: a.target.Provider, Credential: a.credential, Model: a.target.Model,
		Tokens: tokens, CreatedAt: now, Until: now.Add(tenant.ResponseFor),
	})
	if err != nil {
		c.unnoted = err // for the log: the answer is there, and its id will not be known
	}
}

// tokensOf is what the next response brings along of one that used u.
func tokensOf(a *attempt) int64 {
	if !a.usages.Has || a.usages.Bad {
		return 0
	}
	return a.usages.Usage.Input + a.usages.Usage.Output
}

// The requests for a response that there is. They cost nothing.

func (g *Gateway) getResponse(r *request) (any, error) {
	return g.askResponse(r, "GET", "", "include", "include[]", "include_obfuscation")
}

func (g *Gateway) deleteResponse(r *request) (any, error) { return g.askResponse(r, "DELETE", "") }

func (g *Gateway) cancelResponse(r *request) (any, error) { return g.askResponse(r, "POST", "/cancel") }

func (g *Gateway) listResponseInput(r *request) (any, error) {
	return g.askResponse(r, "GET", "/input_items", "after", "before", "limit", "order", "include", "include[]")
}

// askResponse asks the provider that has a response of the caller's. Of the query
// only what is named goes on.
func (g *Gateway) askResponse(r *request, method, below string, names ...string) (any, error) {
	query, err := passedQuery(r, names)
	if err != nil {
		return nil, err
	}
	own, err := g.ownResponse(r.ctx, r.scope, r.param("response"))
	if err != nil {
		return nil, err
	}
	v := r.settings.Vendors[own.Provider]
	if v == nil || !v.Serves(openai.Responses) {
		return nil, errNoObject // the operator has taken the provider away
	}
	cred, err := g.Keys.Credential(r.ctx, r.scope, own.Provider)
	if err != nil {
		return nil, err
	}
	if cred.ID != own.Credential {
		return nil, errNoObject // of another account
	}
	target := provider.Target{Company: r.scope.ID().String(), Provider: own.Provider, Vendor: v, Model: own.Model}
	n, _ := hops(r.rc)
	reply, err := r.settings.Upstream.Send(r.ctx, target, cred, &provider.Call{
		Endpoint: openai.Responses, Method: method, Path: "/" + own.ID + below, Query: query, RequestID: r.id, Hops: n,
	})
	gone := false
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Kind == fault.Upstream && f.Status == 404 && f.Unwrap() == nil {
		gone, err = true, errNoObject
	}
	if method == "DELETE" && (err == nil || gone) {
		if failed := g.Responses.DeleteResponse(r.ctx, r.scope, own.ID); failed != nil && !errors.Is(failed, tenant.ErrNotFound) && err == nil {
			err = failed
		}
	}
	if reply == nil {
		return nil, err
	}
	defer reply.Body.Close()
	if err != nil {
		return nil, err
	}
	return nil, g.relayResponse(r, reply, cred.Secret)
}

// relayResponse writes what a provider answered. Why a response failed may repeat
// the key.
func (g *Gateway) relayResponse(r *request, reply *provider.Reply, secret provider.Secret) error {
	company, room := r.scope.ID().String(), r.settings.MaxAnswer
	if reply.Size >= 0 {
		room = min(reply.Size+1, room)
	}
	if err := g.load.addBytes(company, room, r.settings); err != nil {
		return err
	}
	defer g.load.giveBytes(company, room)
	body, err := readAll(reply.Body, reply.Size, r.settings.MaxAnswer, func(n int64) []byte { return make([]byte, 0, n) })
	if err != nil {
		return err
	}
	if reply.Stream || !json.Valid(body) {
		return garbage("the provider's answer is not a valid one", nil)
	}
	r.rc.Response.Header.SetContentType("application/json")
	r.rc.Response.SetBodyRaw([]byte(secret.Mask(string(body))))
	return nil
}

// passedQuery returns the query as it goes on to the provider. What is not named
// is refused: nobody but the gateway says where a request goes and for whom.
func passedQuery(r *request, names []string) (string, error) {
	var pairs []string
	for name, value := range r.rc.QueryArgs().All() {
		if !slices.Contains(names, string(name)) {
			return "", fault.Field(shortName(string(name)), "This address does not take the parameter %s.", shortName(string(name)))
		}
		pairs = append(pairs, url.QueryEscape(string(name))+"="+url.QueryEscape(string(value)))
	}
	return strings.Join(pairs, "&"), nil
}

// shortName is a name as it may be repeated to who sent it.
func shortName(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), 64)], "\uFFFD")
}
