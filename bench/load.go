//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// callTimeout bounds one call; a target that needs longer is broken.
const callTimeout = 30 * time.Second

// client is one connection that sends requests made beforehand. It is the
// cheapest client we know: the load shares the machine with what it measures.
type client struct {
	addr string
	conn net.Conn
	br   *bufio.Reader
	resp fasthttp.Response
}

func newClient(addr string) *client {
	return &client{addr: addr, br: bufio.NewReaderSize(nil, 32<<10)}
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// wire is a whole HTTP request with this body.
func wire(key string, body []byte) []byte {
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		key, len(body), body)
}

func (c *client) send(req []byte) error {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			return err
		}
		c.conn = conn
		c.br.Reset(conn)
	}
	_ = c.conn.SetDeadline(time.Now().Add(callTimeout))
	_, err := c.conn.Write(req)
	return err
}

// do sends a request and reads the whole answer, a stream to its end. After an
// error the connection is a new one.
func (c *client) do(req []byte, stream bool) error {
	err := c.send(req)
	if err == nil {
		err = c.resp.Read(c.br)
	}
	if err != nil {
		c.close()
		return err
	}
	if err := checkAnswer(&c.resp, stream); err != nil {
		c.close()
		return err
	}
	if c.resp.ConnectionClose() {
		c.close()
	}
	return nil
}

func checkAnswer(resp *fasthttp.Response, stream bool) error {
	body := resp.Body()
	if resp.StatusCode() != fasthttp.StatusOK {
		return fmt.Errorf("status %d: %.300s", resp.StatusCode(), body)
	}
	if !stream {
		if len(body) < smallBody/2 {
			return fmt.Errorf("the answer is too short: %q", body)
		}
		return nil
	}
	if !bytes.HasSuffix(body, []byte(doneEvent)) {
		return fmt.Errorf("the stream does not end in [DONE]: %q", body[max(0, len(body)-200):])
	}
	if n := bytes.Count(body, []byte("data: ")); n < chunks {
		return fmt.Errorf("the stream has %d events, not %d or more", n, chunks)
	}
	return nil
}

// source gives the request a worker sends next.
type source struct {
	requests [][]byte // taken in turn, each worker from a place of its own
	stream   bool
}

func (s source) at(worker, i int) []byte {
	// 7919 is a prime: workers walk the list far apart and meet every request.
	return s.requests[(worker*7919+i)%len(s.requests)]
}

// counted is what a closed loop did.
type counted struct {
	calls  int
	errors int
	first  error // the first error, for the message
	took   time.Duration
}

// closedLoop keeps n connections busy for d, each sending its next request
// when the answer is whole.
func closedLoop(addr string, n int, d time.Duration, src source) counted {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		total counted
	)
	began := time.Now()
	for w := range n {
		wg.Go(func() {
			c := newClient(addr)
			defer c.close()
			mine := counted{}
			for i := 0; time.Since(began) < d && mine.errors < 10; i++ {
				if err := c.do(src.at(w, i), src.stream); err != nil {
					mine.errors++
					mine.first = err
					continue
				}
				mine.calls++
			}
			mu.Lock()
			defer mu.Unlock()
			total.calls += mine.calls
			total.errors += mine.errors
			if total.first == nil {
				total.first = mine.first
			}
		})
	}
	wg.Wait()
	total.took = time.Since(began)
	return total
}

// openLoop sends rate requests a second for d whether or not answers come, and
// returns each latency in microseconds, from the moment the request was to be
// sent. Worker w of n owns every n-th request, on a connection of its own; a
// worker that is late counts the delay.
func openLoop(addr string, n, rate int, d time.Duration, src source) ([]float64, error) {
	total := int(float64(rate) * d.Seconds())
	step := time.Second / time.Duration(rate)
	began := monotonic() + 10*time.Millisecond
	all, errs := make([][]float64, n), make([]error, n)
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() {
			c := newClient(addr)
			defer c.close()
			for i := w; i < total; i += n {
				due := began + time.Duration(i)*step
				sleepUntil(due)
				if err := c.do(src.at(w, i/n), src.stream); err != nil {
					errs[w] = err
					return
				}
				all[w] = append(all[w], micros(monotonic()-due))
			}
		})
	}
	wg.Wait()
	var samples []float64
	for _, s := range all {
		samples = append(samples, s...)
	}
	return samples, errors.Join(errs...)
}

func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("BUG: no monotonic clock: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// sleepUntil blocks its thread. It is exact to some 50 us where Go's timers on
// an idle machine may be a millisecond late.
func sleepUntil(t time.Duration) {
	ts := unix.NsecToTimespec(int64(t))
	for errors.Is(unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil), unix.EINTR) {
	}
}

// openStreams opens n streams and returns once each has had two events. close
// ends them.
func openStreams(addr string, n int, req []byte) (closeAll func(), err error) {
	var (
		wg      sync.WaitGroup
		ready   atomic.Int64
		allIn   = make(chan struct{})
		failed  = make(chan error, n)
		clients = make([]*client, n)
	)
	closeAll = func() {
		for _, c := range clients {
			if c != nil {
				c.close()
			}
		}
		wg.Wait()
	}
	for i := range clients {
		c := &client{addr: addr, br: bufio.NewReaderSize(nil, 4<<10)}
		if err := c.send(req); err != nil {
			closeAll()
			return nil, fmt.Errorf("cannot open stream %d: %w", i, err)
		}
		clients[i] = c
		_ = c.conn.SetDeadline(time.Time{})
		conn, br := c.conn, c.br
		wg.Go(func() {
			if err := readEvents(br, 2); err != nil {
				failed <- err
				return
			}
			if ready.Add(1) == int64(n) {
				close(allIn)
			}
			_, _ = io.Copy(io.Discard, conn)
		})
	}
	select {
	case <-allIn:
		return closeAll, nil
	case err = <-failed:
	case <-time.After(callTimeout):
		err = errors.New("not in time")
	}
	closeAll()
	return nil, fmt.Errorf("%d of %d streams are open: %w", ready.Load(), n, err)
}

// readEvents reads until n lines with data have come.
func readEvents(br *bufio.Reader, n int) error {
	for seen := 0; seen < n; {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("the stream ended after %d events: %w (%.200q)", seen, err, line)
		}
		if bytes.Contains(line, []byte("data: ")) {
			seen++
		}
	}
	return nil
}
