package tenant

import (
	"context"
	"fmt"
)

// Recorder writes down what an operator is about to do. An act that cannot be
// recorded does not happen.
type Recorder interface {
	// RecordAct stores the act durably before it returns. company is "" for an
	// act that concerns no single company.
	RecordAct(ctx context.Context, actor, action, company string) error
}

// Operator is proof that the holder runs the gateway. By itself it opens
// nothing: every piece of work over company borders begins with Begin.
type Operator struct{ o *operator }

type operator struct {
	keyID string
	rec   Recorder
}

// Act is proof that one piece of an operator's work was recorded. What works
// across companies takes an Act; the zero Act panics.
type Act struct{ a *act }

type act struct{ actor, action, company string }

// Begin records what is about to be done and returns the proof of it.
func (o Operator) Begin(ctx context.Context, action, company string) (Act, error) {
	if o.o == nil {
		panic("BUG: zero tenant.Operator")
	}
	actor := "operator:" + o.o.keyID
	if err := o.o.rec.RecordAct(ctx, actor, action, company); err != nil {
		return Act{}, fmt.Errorf("cannot record the act %q: %w", action, err)
	}
	return Act{&act{actor, action, company}}, nil
}

func (a Act) act() *act {
	if a.a == nil {
		panic("BUG: zero tenant.Act")
	}
	return a.a
}

// Actor names who acts, for audit: "operator:" and the id of the key, or
// "operator:gateway" for what the gateway does by itself.
func (a Act) Actor() string { return a.act().actor }

// Action says what is done, for audit.
func (a Act) Action() string { return a.act().action }
