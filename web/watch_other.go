//go:build !linux

package web

import "net"

// watchClose cannot see a peer leave here before something is written to it:
// there is no POLLRDHUP. A client that leaves is noticed at the next event.
func watchClose(net.Conn, func()) (stop func()) { return func() {} }
