package store

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// pgPool hands out connections, the one used last first, so that those that
// nobody needs grow old and are closed. (pgxpool does this too, and needs one
// more module for it.)
//
// A statement whose context ends closes its connection, after asking the server
// to stop: see pgconn.PgConn. The pool then makes a new one.
type pgPool struct {
	config *pgx.ConnConfig
	places chan struct{} // one for each connection that is out or being made

	mu     sync.Mutex
	idle   []*pgConn // the one that was put back last is last
	closed bool
}

// A connection is closed when it is put back after connLifetime, so that a
// moved server is found, and after connIdle without use.
const (
	connLifetime = 30 * time.Minute
	connIdle     = 5 * time.Minute
)

type pgConn struct {
	*pgx.Conn
	made, since time.Time
	used        bool // was given out before
}

func newPGPool(config *pgx.ConnConfig, size int) *pgPool {
	return &pgPool{config: config, places: make(chan struct{}, size)}
}

// get waits for a connection.
func (p *pgPool) get(ctx context.Context) (*pgConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case p.places <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c, err := p.taken(ctx)
	if err != nil {
		<-p.places
	}
	return c, err
}

// taken returns an idle connection, or a new one.
func (p *pgPool) taken(ctx context.Context) (*pgConn, error) {
	p.mu.Lock()
	closed, n := p.closed, len(p.idle)
	var c *pgConn
	if n > 0 {
		c = p.idle[n-1]
		p.idle = p.idle[:n-1]
	}
	p.mu.Unlock()
	switch {
	case closed:
		return nil, errClosed
	case c != nil:
		c.used = true
		return c, nil
	}
	conn, err := pgx.ConnectConfig(ctx, p.config)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return &pgConn{Conn: conn, made: time.Now()}, nil
}

// put gives a connection back. One that is not as it was, within no
// transaction, is closed: its next user is another company.
func (p *pgPool) put(c *pgConn) {
	defer func() { <-p.places }()
	now := time.Now()
	if c.IsClosed() || c.PgConn().TxStatus() != 'I' || now.Sub(c.made) > connLifetime {
		c.end()
		return
	}
	c.since = now
	p.mu.Lock()
	p.idle = append(p.idle, c)
	var old *pgConn
	if now.Sub(p.idle[0].since) > connIdle {
		old = p.idle[0]
		p.idle = p.idle[1:]
	}
	p.mu.Unlock()
	if old != nil {
		old.end()
	}
}

// close waits for every connection to come back.
func (p *pgPool) close() {
	p.mu.Lock()
	before := p.closed
	p.closed = true
	p.mu.Unlock()
	if before {
		return
	}
	for range cap(p.places) {
		p.places <- struct{}{}
	}
	for _, c := range p.idle {
		c.end()
	}
	p.idle = nil
	for range cap(p.places) {
		<-p.places // who still waits is told that the pool is closed
	}
}

func (c *pgConn) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // only says goodbye
}
