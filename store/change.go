package store

import "context"

// The counter is one row, so that generations are given out in the order of
// the commits: who bumps it holds it until it has committed. That is why it is
// bumped last in each transaction.
var (
	changeCounted = globalStatement{"change_counted",
		`UPDATE change_counter SET generation = generation + 1 WHERE id = 1 RETURNING generation`}
	changePut = globalStatement{"change_put",
		`INSERT INTO change (company_id, generation) VALUES ($1, $2)
		ON CONFLICT (company_id) DO UPDATE SET generation = excluded.generation`}
	changesSince = globalStatement{"changes_since",
		`SELECT company_id, generation FROM change WHERE generation > $1 ORDER BY generation`}

	// companyBumped is also the fence: a company that is being erased, or was,
	// takes no change.
	companyBumped = statement{"company_bumped",
		`UPDATE company SET generation = $2 WHERE company_id = $1 AND status IN ('active', 'suspended')`}
)

// bump gives the company of t its next generation in the change feed. The
// caller writes the generation into the company's row. What was noted for the
// audit log is written before, so that the counter is held shortly.
func (t *tx) bump() (int64, error) {
	if err := t.writeNoted(); err != nil {
		return 0, err
	}
	var generation int64
	if err := t.one(changeCounted, []any{&generation}); err != nil {
		return 0, err
	}
	_, err := t.exec(changePut, t.company, generation)
	return generation, err
}

// Changes returns the ids of the companies whose policy changed after the given
// generation, and the last generation it has seen: what to ask for next time.
func (db *DB) Changes(ctx context.Context, after int64) (companies []string, last int64, err error) {
	last = after
	err = db.global(ctx, reading, func(t *tx) error {
		return t.query(changesSince, func(r row) error {
			var id string
			if err := r.Scan(&id, &last); err != nil {
				return err
			}
			companies = append(companies, id)
			return nil
		}, after)
	})
	return companies, last, err
}
