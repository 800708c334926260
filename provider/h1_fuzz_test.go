package provider

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
)

// FuzzHead: what is taken for a head net/http takes for the same one, and it does
// not matter in what pieces it comes.
func FuzzHead(f *testing.F) {
	for _, s := range []string{
		plainOK, "HTTP/1.1 200\nContent-Length: 4\n\ndata", "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nRetry-After-Ms: 100\r\nX-Should-Retry: false\r\nContent-Encoding: gzip\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: b\r\n Content-Length: 3\r\n\r\n", "HTTP/1.1 200 OK\r\n: x\r\n\r\n", "\r\n\r\n", "HTTP/1.1 304 x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
	} {
		f.Add([]byte(s), 7)
	}
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		n := headEnd(b, 0)
		if from := max(min(cut, len(b)), 0); n == 0 && headEnd(b[:from], 0) > 0 || headEnd(b[:from], 0) == 0 && headEnd(b, from) != n {
			t.Fatalf("%q cut at %d", b, from)
		}
		if n == 0 {
			return
		}
		h, frame, err := parseHead(b[:n])
		if err != nil {
			return
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b[:n])), &http.Request{Method: "POST"})
		if err != nil {
			t.Fatalf("%q: net/http says %v", b[:n], err)
		}
		resp.Body.Close()
		want := headOf(resp)
		if strings.Contains(h.encoding, ", ") { // net/http's Get says the first
			want.encoding = h.encoding
		}
		if h != want {
			t.Fatalf("%q: %+v, net/http says %+v", b[:n], h, want)
		}
		bare := h.status < 200 || h.status == 204 || h.status == 304
		if !bare && (frame.size != resp.ContentLength || frame.chunked != (len(resp.TransferEncoding) > 0)) || bare && frame.size != 0 {
			t.Fatalf("%q: %+v, net/http says %d %v", b[:n], frame, resp.ContentLength, resp.TransferEncoding)
		}
		if resp.Close && !frame.last {
			t.Fatalf("%q: net/http closes the connection", b[:n])
		}
	})
}

// FuzzChunked: in whatever pieces a body comes it says the same, and what is taken
// for one net/http takes for the same one.
func FuzzChunked(f *testing.F) {
	for _, s := range []string{"4\r\ndata\r\n0\r\n\r\n", "4;a=b\r\ndata\r\n0\r\nA: b\r\n\r\nrest", "0a \r\n0123456789\r\n0\r\n\r\n", "1\r\nx\r\n", "4\ndata\n", "fffffffffffffff\r\nx", "\r\n", "0\r\n\r\n"} {
		f.Add([]byte(s), uint8(1))
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		var whole, pieces chunked
		first := bytes.Clone(b)
		n, used, err := whole.decode(first)
		data := first[:n]
		var got []byte
		var perr error
		read := 0
		for rest := b; len(rest) > 0 && perr == nil && !pieces.done; {
			p := bytes.Clone(rest[:min(len(rest), max(int(piece), 1))])
			var k, u int
			k, u, perr = pieces.decode(p)
			got = append(got, p[:k]...)
			rest, read = rest[u:], read+u
		}
		if !bytes.Equal(data, got) || (err == nil) != (perr == nil) || whole.done != pieces.done || read != used {
			t.Fatalf("%q: whole %q %d %v, in pieces %q %d %v", b, data, used, err, got, read, perr)
		}
		if !whole.done {
			return
		}
		// net/http's reader stops before the trailer, and knows fewer blanks.
		theirs, terr := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(b)))
		if terr != nil || !bytes.Equal(theirs, data) {
			t.Fatalf("%q: %q, net/http says %q %v", b, data, theirs, terr)
		}
	})
}
