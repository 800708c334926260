package web

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchClose calls onClose once when the peer closes the connection while a
// call is under way. fasthttp does not tell a handler, and a read would eat the
// bytes of a pipelined request: so this parks on the runtime's poller and asks
// poll(2) for POLLRDHUP, without reading.
//
// stop must return before fasthttp reads the next request of the connection. A
// peer that shuts down only its sending side counts as gone, as in net/http.
func watchClose(c net.Conn, onClose func()) (stop func()) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return func() {}
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	// The deadline for the body would end the wait too.
	_ = c.SetReadDeadline(time.Time{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		gone := false
		var p [1]unix.PollFd
		_ = rc.Read(func(fd uintptr) bool {
			p[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP}
			n, _ := unix.Poll(p[:], 0)
			gone = n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
			return gone // false: wait for the next edge
		})
		if gone {
			onClose()
		}
	}()
	return func() {
		_ = c.SetReadDeadline(time.Unix(1, 0)) // ends the wait with a timeout
		<-done
		_ = c.SetReadDeadline(time.Time{})
	}
}
