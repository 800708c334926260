package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// What is different where a call is made with a credential that the operator
// lends: one account at the provider, of which no company may learn or touch what
// is another's.

// shared returns the limits of the attempt: those of the key, and with a lent
// credential the company's share of what the provider allows it.
func (c *call) shared(a *attempt) []tenant.Limited {
	limits := c.scope.Limits()
	if !a.target.Lent {
		return limits
	}
	lent := c.scope.Company().Lends(a.target.Provider)
	if lent == nil || lent.Limits.Zero() {
		return limits
	}
	all := make([]tenant.Limited, len(limits), len(limits)+1)
	copy(all, limits)
	return append(all, tenant.Limited{Kind: tenant.LentKind, ID: a.target.Provider, Limits: lent.Limits})
}

// cacheKey returns what the provider is told to find its cache of the prompt by.
// It is another for each company, whatever the client wrote: none gets a hit, and
// the time it saves, from what another has sent.
func (c *call) cacheKey() string {
	mac := hmac.New(sha256.New, c.g.CacheKey)
	mac.Write(c.scope.Name("prompt cache", "").Append(nil))
	mac.Write([]byte(c.request.CacheKey))
	return "bh-" + hex.EncodeToString(mac.Sum(nil)[:16])
}

// lentCodes are what a company may be told of why a provider refused a request:
// they are about the request alone.
var lentCodes = map[string]string{
	"context_length_exceeded":  "The input and the answer are longer than the model takes.",
	"string_above_max_length":  "A text in the request is longer than the provider takes.",
	"content_filter":           "The provider's filter refused the content.",
	"content_policy_violation": "The provider's filter refused the content.",
	"unsupported_parameter":    "The model does not take one of the fields of the request.",
	"unsupported_value":        "The model does not take one of the values in the request.",
	"invalid_value":            "The provider found one of the values in the request to be invalid.",
	"invalid_prompt":           "The provider refused the prompt.",
	"invalid_image_format":     "The provider cannot read an image of the request.",
}

// retold returns what the client may see of err. The words of a provider about a
// lent credential are about the operator's account: its name, its limits, what
// others do with it.
func (c *call) retold(err error) error {
	a := c.last()
	if a == nil || !a.target.Lent {
		return err
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind != fault.Upstream || f.Unwrap() != nil || f.Status == 0 {
		return err
	}
	told := lentFault(f.Status, f.Code)
	told.Retriable = f.Retriable
	return told
}

func lentFault(status int, code string) *fault.Error {
	f := fault.New(fault.Upstream, "The provider refused the request.").WithCode("upstream_error")
	f.Status = status
	switch {
	case status == 429:
		f.Message, f.Code, f.Type = "The provider is busy. Try again later.", "rate_limit_exceeded", "requests"
	case status >= 500 || status == 408:
		f.Message, f.Status = "The provider failed to answer.", 502
	case status == 401 || status == 402 || status == 403:
		// The operator's trouble, not the client's.
		f.Message, f.Status, f.NoRetry = "The provider does not take this gateway's calls at the moment. Tell the operator.", 502, true
	case lentCodes[code] != "":
		f.Message, f.Code = lentCodes[code], code
	}
	return f
}

// uncached returns an answer without what it says of the provider's caches.
func (c *call) uncached(answer []byte) []byte {
	if !c.last().target.Lent {
		return answer
	}
	out, hidden := openai.AppendUncached(make([]byte, 0, len(answer)), answer)
	if !hidden {
		return answer
	}
	return out
}

// report tells what came of an attempt to what remembers which targets fail.
func (c *call) report(a *attempt, err error) {
	if err == nil {
		c.g.health.Report(&a.target, false, c.g.now())
		return
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || c.ctx.Err() != nil {
		return
	}
	if f.Kind == fault.Timeout || f.Kind == fault.Upstream && (f.Status >= 500 || f.Status == 0) {
		c.g.health.Report(&a.target, true, c.g.now())
	}
}
