package web

import (
	"cmp"

	"bulkhead/openai"
	"bulkhead/router"
)

// modelObject is OpenAI's model object.
type modelObject struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

// listedSince stands for "created" of models whose date is not known: OpenAI's
// object has no null there.
const listedSince = 1_700_000_000

func toModel(m router.Model) modelObject {
	return modelObject{m.ID, "model", cmp.Or(m.Created, listedSince), m.OwnedBy}
}

func (g *Gateway) listModels(r *request) (any, error) {
	models := r.settings.Router.Models(r.scope)
	out := make([]modelObject, len(models))
	for i, m := range models {
		out[i] = toModel(m)
	}
	return openai.NewList(out, func(m modelObject) string { return m.ID }, false), nil
}

func (g *Gateway) getModel(r *request) (any, error) {
	m, err := r.settings.Router.Model(r.scope, r.param("model"))
	if err != nil {
		return nil, err
	}
	return toModel(m), nil
}
