// Package fault defines the one error type that may reach a client.
//
// Everything else that goes wrong is an ordinary error: it is logged at the end
// of the request and the client sees a 500 without details. How a Kind becomes
// an HTTP status and an OpenAI error code is one table in web/error.go.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what went wrong in terms a client can act on.
type Kind uint8

// The kinds. Adding one means adding its row in web/error.go.
const (
	Internal         Kind = iota // the zero Kind: details go to the log, never to the client
	Invalid                      // the request is wrong; Param names the field
	Unauthenticated              // no key, or not one of ours
	Forbidden                    // the key is known and does not hold this right
	NotFound                     // unknown, or somebody else's: the two look the same
	MethodNotAllowed             // the path exists, the method does not
	RequestTimeout               // the request did not arrive in time
	Conflict                     // the state of the object forbids it, or it exists already
	TooLarge                     // the body is over the limit
	HeaderTooLarge               // the header is over the limit
	RateLimited                  // too many requests or tokens; RetryAfter says when
	OverBudget                   // the money is spent
	Upstream                     // the provider failed or refused; Status keeps its HTTP status
	Unavailable                  // a backend of the gateway is away
	Timeout                      // the provider did not answer in time
	ClientLeft                   // the client closed the connection; nobody reads the answer
)

// Error is an error whose message is safe to show to the client.
type Error struct {
	Kind    Kind
	Code    string // OpenAI's "code"; "" takes the default of the Kind
	Type    string // OpenAI's "type"; "" takes the default of the Kind
	Param   string // the field of the request that is wrong; "" is null
	Message string

	// Status is the provider's HTTP status, kept for the client. It is 0 for
	// the gateway's own errors and is looked at for Kind Upstream only.
	Status int

	// RetryAfter is how long the client should wait; 0 says nothing.
	RetryAfter time.Duration

	// NoRetry tells the SDKs not to try again (x-should-retry: false).
	NoRetry bool

	// Retriable says that another target of the same route may be tried.
	Retriable bool

	cause error
}

func (e *Error) Error() string {
	if e.cause != nil {
		return e.Message + ": " + e.cause.Error()
	}
	return e.Message
}

// Unwrap returns the cause, which is for the log only.
func (e *Error) Unwrap() error { return e.cause }

// New returns an Error of the given kind.
func New(k Kind, format string, a ...any) *Error {
	return &Error{Kind: k, Message: fmt.Sprintf(format, a...)}
}

// Wrap returns an Error of the given kind. The cause is logged and never shown.
func Wrap(k Kind, cause error, format string, a ...any) *Error {
	e := New(k, format, a...)
	e.cause = cause
	return e
}

// Field returns an Invalid error about one field of the request.
func Field(param, format string, a ...any) *Error {
	e := New(Invalid, format, a...)
	e.Param = param
	return e
}

// WithCode sets e's code and returns e.
func (e *Error) WithCode(code string) *Error {
	e.Code = code
	return e
}

// As returns err as an *Error. An error that is not one becomes Internal, with
// err as its cause.
func As(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: Internal, Message: "internal error", cause: err}
}

// Is reports whether err is an *Error of kind k.
func Is(err error, k Kind) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == k
}
