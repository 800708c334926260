//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// maxBytes bounds a request body, and an answer that is not a stream.
const maxBytes = 32 << 20

// floorFast is the cheapest proxy we can write: fasthttp both ways, no logic.
// It does not see a client that leaves while the upstream is silent.
func floorFast(upstream string) fasthttp.RequestHandler {
	json := &fasthttp.HostClient{Addr: upstream, MaxConns: 1 << 16}
	sse := &fasthttp.HostClient{Addr: upstream, MaxConns: 1 << 16, StreamResponseBody: true}
	return func(rc *fasthttp.RequestCtx) {
		if !bytes.Contains(rc.PostBody(), []byte(`"stream":true`)) {
			if err := json.Do(&rc.Request, &rc.Response); err != nil {
				rc.Error(err.Error(), http.StatusBadGateway)
			}
			return
		}
		// The stream is read after the handler has returned, so the answer it
		// comes from must not be rc.Response: setting its body would close it.
		resp := fasthttp.AcquireResponse()
		if err := sse.Do(&rc.Request, resp); err != nil {
			fasthttp.ReleaseResponse(resp)
			rc.Error(err.Error(), http.StatusBadGateway)
			return
		}
		rc.SetStatusCode(resp.StatusCode())
		rc.SetContentTypeBytes(resp.Header.ContentType())
		rc.Response.ImmediateHeaderFlush = true
		rc.Response.SetBodyStream(fastBody{resp}, -1)
	}
}

// fastBody reads the streamed body of resp, and gives resp back at the end.
type fastBody struct{ resp *fasthttp.Response }

func (b fastBody) Read(p []byte) (int, error) { return b.resp.BodyStream().Read(p) }

func (b fastBody) Close() error {
	err := b.resp.CloseBodyStream()
	fasthttp.ReleaseResponse(b.resp)
	return err
}

// floorLike is the gateway's server and transport with nothing between them:
// fasthttp in front, net/http behind, bodies copied, the client watched.
func floorLike(upstream string) fasthttp.RequestHandler {
	tr := &http.Transport{MaxIdleConnsPerHost: 1 << 16, DisableCompression: true}
	return func(rc *fasthttp.RequestCtx) {
		body, err := readAll(rc.RequestBodyStream(), rc.Request.Header.ContentLength())
		if err != nil {
			rc.Error(err.Error(), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		stop := watchClose(rc.Conn(), cancel)
		end := func() {
			cancel()
			stop()
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+upstream+string(rc.Path()), bytes.NewReader(body))
		if err != nil {
			end()
			rc.Error(err.Error(), http.StatusBadRequest)
			return
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer sk-upstream")
		resp, err := tr.RoundTrip(req)
		if err != nil {
			end()
			rc.Error(err.Error(), http.StatusBadGateway)
			return
		}
		rc.SetStatusCode(resp.StatusCode)
		rc.SetContentType(resp.Header.Get("Content-Type"))
		if resp.ContentLength < 0 {
			rc.Response.ImmediateHeaderFlush = true
			rc.Response.SetBodyStream(&likeBody{body: resp.Body, conn: rc.Conn(), end: end}, -1)
			return
		}
		answer, err := readAll(resp.Body, int(resp.ContentLength))
		_ = resp.Body.Close()
		end()
		if err != nil {
			rc.Error(err.Error(), http.StatusBadGateway)
			return
		}
		rc.Response.SetBodyRaw(answer)
	}
}

// readAll reads a body of n bytes, of unknown length if n is below 0.
func readAll(r io.Reader, n int) ([]byte, error) {
	if n < 0 || n > maxBytes {
		return io.ReadAll(io.LimitReader(r, maxBytes))
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

const writeIdle = 30 * time.Second

// likeBody gives one upstream read a Read, which fasthttp sends as one chunk,
// and moves the client's write deadline on with each.
type likeBody struct {
	body io.ReadCloser
	conn net.Conn
	end  func()
}

func (b *likeBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if n > 0 {
		_ = b.conn.SetWriteDeadline(time.Now().Add(writeIdle))
	}
	return n, err
}

func (b *likeBody) Close() error {
	err := b.body.Close()
	b.end()
	return err
}

// watchClose calls onClose when the peer of c closes. It reads nothing: it
// waits on the runtime's poller and asks poll(2) for the hang-up. stop must
// have returned before the next request is read from c.
func watchClose(c net.Conn, onClose func()) (stop func()) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		const hangUp = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR
		gone := false
		fds := []unix.PollFd{{Events: unix.POLLRDHUP}}
		_ = raw.Read(func(fd uintptr) bool {
			fds[0].Fd = int32(fd)
			n, _ := unix.Poll(fds, 0)
			gone = n > 0 && fds[0].Revents&hangUp != 0
			return gone
		})
		if gone {
			onClose()
		}
	}()
	return func() {
		_ = c.SetReadDeadline(time.Unix(1, 0)) // wakes the goroutine
		<-done
		_ = c.SetReadDeadline(time.Time{})
	}
}

// floorServer is a server with the gateway's settings. The stream options are
// floorLike's: floorFast reads whole bodies.
func floorServer(h fasthttp.RequestHandler, streamed bool) *fasthttp.Server {
	return &fasthttp.Server{
		Handler: h, NoDefaultServerHeader: true, StreamRequestBody: streamed, DisablePreParseMultipartForm: true,
		ReadBufferSize: 16 << 10, ReadTimeout: 30 * time.Second, WriteTimeout: writeIdle, IdleTimeout: 75 * time.Second,
		Logger: quiet{},
	}
}

// quiet drops fasthttp's line for each connection a client closes.
type quiet struct{}

func (quiet) Printf(string, ...any) {}
