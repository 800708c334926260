package web

import (
	"errors"
	"strings"
	"testing"

	"bulkhead/tenant"
	"bulkhead/test/upstream"
)

// TestResponseStoreAway: with the store away a response is answered, and what
// needs to know whose one is, is not.
func TestResponseStoreAway(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	id := responseID(t, l.respond(key, "up/ok", ""))
	l.responses.setFail(errors.New("the store is away"))
	unknown := responseID(t, l.respond(key, "up/ok", ""))
	if a := l.respond(key, "up/ok", streaming); a.status != 200 || a.err != nil || !strings.Contains(a.body, "response.completed") {
		t.Errorf("%s", a)
	}
	before := len(l.up.Requests())
	if a := l.do("GET", key, "/v1/responses/"+id, ""); a.status != 503 {
		t.Errorf("%s", a)
	}
	if a := l.respond(key, "up/ok", `,"previous_response_id":"`+id+`"`); a.status != 503 {
		t.Errorf("%s", a)
	}
	if n := len(l.up.Requests()); n != before {
		t.Errorf("%d requests reached the provider", n-before)
	}
	l.responses.setFail(nil)
	if a := l.do("GET", key, "/v1/responses/"+unknown, ""); a.status != 404 {
		t.Errorf("%s", a)
	}
	l.settle()
	if !strings.Contains(l.logged.String(), "response_not_noted") {
		t.Error("nothing in the log says that a response is not noted")
	}
}

// TestResponseCollision: a provider that calls its answer as another project's
// response is called gets nobody anything.
func TestResponseCollision(t *testing.T) {
	l := newLab(t, labOptions{})
	key, s := l.company("acme", tenant.KeyLive, nil)
	l.world.Edit(s, func(c *tenant.Company) { c.Projects["proj_two"] = &tenant.Project{ID: "proj_two", Name: "second"} })
	other, _ := l.world.AddKey(s, tenant.KeyLive, "proj_two")
	id := responseID(t, l.respond(key, "up/ok", ""))
	l.up.Handle("evil", func(c *upstream.Call) {
		c.JSON(200, map[string]any{"id": id, "object": "response", "status": "completed", "output": []any{}, "usage": map[string]any{"input_tokens": 1, "output_tokens": 1}})
	})
	if a := l.respond(other, "openai/evil", ""); a.status != 200 {
		t.Errorf("%s", a)
	}
	if a := l.do("GET", other, "/v1/responses/"+id, ""); a.status != 404 {
		t.Errorf("%s", a)
	}
	if a := l.do("GET", key, "/v1/responses/"+id, ""); a.status != 200 {
		t.Errorf("%s", a)
	}
	// An id that is no part of a path is not noted.
	l.up.Handle("up", func(c *upstream.Call) {
		c.JSON(200, map[string]any{"id": "../admin", "object": "response", "output": []any{}})
	})
	if a := l.respond(key, "up/up", ""); a.status != 200 || len(l.responses.all()) != 1 {
		t.Errorf("%s, noted %v", a, l.responses.all())
	}
}
