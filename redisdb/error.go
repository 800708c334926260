package redisdb

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ErrDown is what an error Is if Redis did not do what it was asked for reasons
// that pass: it cannot be reached, is too slow, is loading, is no master. Unless
// the error also is an *Answer, nobody knows whether the command was executed,
// now or later.
var ErrDown = errors.New("redis is not available")

// Answer is an error that the server answered with: it did not execute the
// command, or not to its end.
type Answer struct {
	Text string // the server's words, which begin with a code: "OOM …"
}

func (a *Answer) Error() string { return "redis answered: " + a.Text }

// Is reports whether the answer is one that passes.
func (a *Answer) Is(target error) bool {
	if target != ErrDown {
		return false
	}
	code, _, _ := strings.Cut(a.Text, " ")
	switch code {
	case "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "OOM", "MISCONF", "MOVED", "ASK", "UNKILLABLE":
		return true
	}
	return strings.HasPrefix(a.Text, "ERR max number of clients")
}

// judge makes an error of the library one of this package.
func (c *Client) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case answered(err):
		a := &Answer{Text: err.Error()}
		if errors.Is(a, ErrDown) {
			c.reload()
		}
		return a
	}
	c.reload()
	return fmt.Errorf("%w: %w", ErrDown, err)
}

// reload looks for the slots of a master that is gone; otherwise that is done
// every minute.
func (c *Client) reload() {
	for _, one := range []redis.UniversalClient{c.rdb, c.slow} {
		if cluster, ok := one.(*redis.ClusterClient); ok {
			cluster.ReloadState(context.Background())
		}
	}
}

// answered reports whether err is the server's own.
func answered(err error) bool {
	var own redis.Error
	return errors.As(err, &own)
}
