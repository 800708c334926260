package store

import (
	"context"
	"errors"
	"fmt"

	"bulkhead/audit"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// Who adds to a chain takes its head first: the row of the head is locked until
// the end of the transaction, so that many gateways make one chain.
var (
	auditInserted = statement{"audit_inserted",
		`INSERT INTO audit (company_id, id, created_at, type, actor, project_id, object, count, detail)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`}
	auditLinked = statement{"audit_linked",
		`INSERT INTO audit_link (company_id, seq, id, hash) VALUES ($1, $2, $3, $4)`}
	auditHeadTaken = statement{"audit_head_taken",
		`UPDATE audit_head SET count = count + $2 WHERE company_id = $1 RETURNING count, hash, seal`}
	auditHeadSet = statement{"audit_head_set",
		`UPDATE audit_head SET hash = $2, seal = $3 WHERE company_id = $1`}
	// A company that is being erased, or was, begins nothing.
	auditHeadBegun = statement{"audit_head_begun",
		`INSERT INTO audit_head (company_id, count, hash, seal)
		SELECT company_id, $2, $3, $4 FROM company WHERE company_id = $1 AND status IN ('active', 'suspended')`}
	auditHeadOne = statement{"audit_head_one",
		`SELECT count, hash, seal FROM audit_head WHERE company_id = $1`}
	auditAll = statement{"audit_all",
		`SELECT ` + auditColumns + ` FROM audit AS a WHERE a.company_id = $1 ORDER BY a.created_at, a.id`}

	actInserted = globalStatement{"act_inserted",
		`INSERT INTO operator_act (id, at, actor, action, company) VALUES ($1, $2, $3, $4, $5)`}
	actLinked = globalStatement{"act_linked",
		`INSERT INTO act_link (seq, id, hash) VALUES ($1, $2, $3)`}
	actHeadTaken = globalStatement{"act_head_taken",
		`UPDATE act_head SET count = count + $1 WHERE id = 1 RETURNING count, hash, seal`}
	actHeadSet = globalStatement{"act_head_set",
		`UPDATE act_head SET hash = $1, seal = $2 WHERE id = 1`}
	actHeadBegun = globalStatement{"act_head_begun",
		`INSERT INTO act_head (id, count, hash, seal) VALUES (1, $1, $2, $3) ON CONFLICT (id) DO NOTHING`}
	actHeadOne = globalStatement{"act_head_one", `SELECT count, hash, seal FROM act_head WHERE id = 1`}
	actsAll    = globalStatement{"acts_all",
		`SELECT id, at, action, actor, company FROM operator_act ORDER BY at, id`}
)

// KeyAudit sets the key of the audit chains, at least 32 bytes that are not in
// the database. It is called once, before anything that is written down.
func (db *DB) KeyAudit(key []byte) { db.chain = audit.NewChain(key) }

// chain is one that the transaction adds to: its statements, and its name in
// the hashes.
type chain struct {
	name                      string
	taken, set, begun, linked anyStatement
}

func (t *tx) auditChain() chain {
	return chain{t.company, auditHeadTaken, auditHeadSet, auditHeadBegun, auditLinked}
}

func actChain() chain {
	return chain{audit.Operators, actHeadTaken, actHeadSet, actHeadBegun, actLinked}
}

// writeNoted writes the rows that were noted and makes them the end of the
// company's chain.
func (t *tx) writeNoted() error {
	if len(t.noted) == 0 {
		return nil
	}
	rows := t.noted
	t.noted = nil
	c := t.auditChain()
	head, err := t.takeHead(c, len(rows))
	if errors.Is(err, errNoRow) {
		if err = t.beginAudit(); err == nil {
			head, err = t.takeHead(c, len(rows))
		}
	}
	if err != nil {
		return err
	}
	for i := range rows {
		e := &rows[i]
		err := t.send(auditInserted, e.ID, micros(e.At), string(e.Type), e.Actor, e.ProjectID, e.Object, e.Count, e.Detail)
		if err != nil {
			return err
		}
	}
	return t.link(c, head, rows)
}

// errBroken is why nothing is added to a chain: sealed anew, its end would look
// right again.
var errBroken = errors.New("the head of the audit chain is not as a gateway left it; run `gateway audit verify`")

// takeHead locks the head of a chain for n more rows, and returns what it was.
func (t *tx) takeHead(c chain, n int) (head audit.Head, err error) {
	if t.chain == nil {
		panic("BUG: the audit chain has no key")
	}
	var hash, seal []byte
	if err := t.one(c.taken, []any{&head.Count, &hash, &seal}, n); err != nil {
		return head, err
	}
	head.Count -= int64(n)
	copy(head.Hash[:], hash)
	if !t.chain.Sealed(c.name, head, seal) {
		return head, fmt.Errorf("chain %s: %w", c.name, errBroken)
	}
	return head, nil
}

// link adds a link for each row to a chain whose head was taken.
func (t *tx) link(c chain, head audit.Head, rows []audit.Event) error {
	for i := range rows {
		head = t.chain.Add(c.name, head, &rows[i])
		hash := head.Hash // the session's from now on, and head goes on
		if err := t.send(c.linked, head.Count, rows[i].ID, hash[:]); err != nil {
			return err
		}
	}
	seal := t.chain.Seal(c.name, head)
	return must(t.exec(c.set, head.Hash[:], seal[:]))
}

// beginAudit begins the chain of the company with the rows that it has from
// before there were chains, and has that written among the operators' acts: a
// chain that is begun a second time was taken away before.
func (t *tx) beginAudit() error {
	var old []audit.Event
	err := t.query(auditAll, func(r row) error {
		var e audit.Event
		err := r.Scan(auditDest(&e)...)
		old = append(old, e)
		return err
	})
	if err != nil {
		return err
	}
	if err := t.begin(t.auditChain(), old); err != nil {
		return err
	}
	return t.recordAct(t.actor, audit.ChainBegun, t.company)
}

// begin makes a chain of the rows.
func (t *tx) begin(c chain, rows []audit.Event) error {
	if t.chain == nil {
		panic("BUG: the audit chain has no key")
	}
	var none audit.Head
	head := none
	head.Count = int64(len(rows))
	seal := t.chain.Seal(c.name, none)
	if err := must(t.exec(c.begun, head.Count, none.Hash[:], seal[:])); err != nil {
		return err
	}
	if len(rows) == 0 {
		return nil
	}
	return t.link(c, none, rows)
}

// recordAct writes down what an operator does, at the end of the operators' chain.
func (t *tx) recordAct(actor, action, company string) error {
	e := audit.Event{ID: openai.NewID("act_"), At: t.now, Type: audit.Type(action), Actor: actor, Object: company, Count: 1}
	c := actChain()
	head, err := t.takeHead(c, 1)
	if errors.Is(err, errNoRow) {
		if err = t.beginActs(); err == nil {
			head, err = t.takeHead(c, 1)
		}
	}
	if err != nil {
		return err
	}
	if _, err := t.exec(actInserted, e.ID, micros(e.At), e.Actor, action, company); err != nil {
		return err
	}
	return t.link(c, head, []audit.Event{e})
}

// beginActs begins the operators' chain with the acts from before. If another
// gateway does the same, one waits for the other and finds it done.
func (t *tx) beginActs() error {
	var old []audit.Event
	err := t.query(actsAll, func(r row) error {
		e, err := scanAct(r)
		old = append(old, e)
		return err
	})
	if err != nil {
		return err
	}
	if err := t.begin(actChain(), old); !errors.Is(err, errNoRow) {
		return err
	}
	return nil
}

func scanAct(r row) (audit.Event, error) {
	e := audit.Event{Count: 1}
	err := r.Scan(&e.ID, moment{&e.At}, &e.Type, &e.Actor, &e.Object)
	return e, err
}

// chainsBegun is the fact that every company has a chain.
const chainsBegun = "audit_chains_begun"

// ChainsBegun reports whether BeginChains has done its work.
func (db *DB) ChainsBegun(ctx context.Context) (done bool, err error) {
	err = db.global(ctx, reading, func(t *tx) error {
		var value string
		err := t.one(installationOne, []any{&value}, chainsBegun)
		if done = err == nil; errors.Is(err, errNoRow) {
			return nil
		}
		return err
	})
	return done, err
}

// BeginChains begins the chain of each company that was there before there were
// chains. Those of others begin with the company.
func (db *DB) BeginChains(ctx context.Context, a tenant.Act) error {
	for after := ""; ; {
		some, err := db.AuditedCompanies(ctx, a, after)
		if err != nil {
			return err
		}
		if len(some) == 0 {
			_, err := db.Installation(ctx, chainsBegun, "yes")
			return err
		}
		for _, c := range some {
			if after = c.ID; c.Status == tenant.Erasing || c.Status == tenant.Erased {
				continue
			}
			err := db.run(ctx, &tx{company: c.ID, actor: a.Actor()}, writing, func(t *tx) error {
				err := t.one(auditHeadOne, []any{new(int64), new([]byte), new([]byte)})
				if errors.Is(err, errNoRow) {
					err = t.beginAudit()
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("cannot begin the audit chain of company %s: %w", c.ID, err)
			}
		}
	}
}
