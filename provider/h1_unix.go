//go:build unix

package provider

import "golang.org/x/sys/unix"

// h1Works says that h1 can be used on this system.
const h1Works = true

// readable reports whether a read would not wait: bytes have come, or the end, or
// an error.
func readable(fd uintptr) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p[:], 0)
		if err != unix.EINTR {
			return n != 0 || err != nil
		}
	}
}
