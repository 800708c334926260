package vector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"bulkhead/fault"
)

// link is the connection to Milvus: dialled by one, in the background, and again
// after a pause if that fails. What waits for it has a context of its own. A
// connection that was made mends itself.
type link struct {
	o MilvusOptions

	mu      sync.Mutex
	c       *client.GrpcClient
	dialing chan struct{} // closed when the dialling has ended
	err     error         // of the last dialling
	again   time.Time     // when to dial again
	closed  bool
}

const (
	dialTimeout = 3 * time.Second
	dialPause   = time.Second
)

var errAway = errors.New("no connection")

// get returns the connection.
func (l *link) get(ctx context.Context) (*client.GrpcClient, error) {
	l.mu.Lock()
	switch {
	case l.c != nil:
		defer l.mu.Unlock()
		return l.c, nil
	case l.closed:
		defer l.mu.Unlock()
		return nil, away(errors.New("it was closed"))
	case l.dialing == nil && time.Now().Before(l.again):
		defer l.mu.Unlock()
		return nil, away(l.err)
	case l.dialing == nil:
		l.dialing = make(chan struct{})
		go l.dial()
	}
	done := l.dialing
	l.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, late(ctx.Err())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c == nil {
		return nil, away(l.err)
	}
	return l.c, nil
}

func (l *link) dial() {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	made, err := client.NewClient(ctx, client.Config{
		Address: l.o.Addr, Username: l.o.User, Password: l.o.Password,
		DialOptions: []grpc.DialOption{
			//lint:ignore SA1019 the SDK dials so, and a client that has not connected is none
			grpc.WithBlock(),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: dialPause},
				MinConnectTimeout: dialTimeout,
			}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)),
		},
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	done := l.dialing
	defer close(done)
	l.dialing, l.err, l.again = nil, err, time.Now().Add(dialPause)
	if err != nil {
		if l.err == nil {
			l.err = errAway
		}
		return
	}
	c, ok := made.(*client.GrpcClient)
	switch {
	case !ok:
		made.Close()
		l.err = errors.New("the SDK returns another client")
	case l.closed:
		made.Close()
	default:
		l.c = c
	}
}

func (l *link) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.c == nil {
		return nil
	}
	c := l.c
	l.c = nil
	return c.Close()
}

// failed says what an error of the SDK means. What it tells of the request is
// ids and numbers.
func (l *link) failed(ctx context.Context, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return late(fmt.Errorf("cannot %s in Milvus: %w", what, ctx.Err()))
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if s, ok := status.FromError(err); ok && s.Code() == codes.DeadlineExceeded {
		return late(err)
	}
	return away(fmt.Errorf("cannot %s: %w", what, err))
}

func away(err error) error {
	return fault.Wrap(fault.Unavailable, err, "The vector index cannot be reached.")
}
