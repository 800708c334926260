package provider

import "errors"

// chunked reads the chunked transfer coding (RFC 9112, section 7.1) from pieces
// that are cut anywhere. The zero chunked is at the start of a body.
type chunked struct {
	state  chunkState
	left   int64 // bytes of the chunk still to come
	digits int   // of its size
	excess int64 // bytes that are no data, beyond what is usual for as many chunks
	line   bool  // the line of the trailer has begun
	done   bool
}

type chunkState uint8

const (
	chunkSize    chunkState = iota // hexadecimal digits
	chunkSpace                     // what may stand behind them
	chunkExt                       // an extension
	chunkSizeLF                    // the LF of the size's line
	chunkData                      // data
	chunkDataCR                    // the CR behind the data
	chunkDataLF                    // and its LF
	chunkTrailer                   // fields behind the last chunk
	chunkLineLF                    // the LF of such a line
)

var errChunk = errors.New("the answer's body is not well-formed chunks")

// Bounds of what is no data: an upstream must not be able to send without end and
// say nothing. Each chunk may have a line of chunkUsual bytes, and its size again.
const (
	maxChunkExcess = 16 << 10
	chunkUsual     = 16
)

// decode takes the next bytes of the body and moves the data in them to their
// start. It returns how many those are. Once the body is at its end, done is set,
// and used is how many of b belonged to it.
func (d *chunked) decode(b []byte) (data, used int, err error) {
	for used < len(b) && !d.done {
		if d.state == chunkData {
			n := copy(b[data:], b[used:min(len(b), used+int(min(d.left, int64(len(b)))))])
			data, used, d.left = data+n, used+n, d.left-int64(n)
			if d.left == 0 {
				d.state = chunkDataCR
			}
			continue
		}
		if !d.step(b[used]) {
			return data, used, errChunk
		}
		used++
	}
	return data, used, nil
}

// step takes a byte that is no data, and reports whether it may stand there.
func (d *chunked) step(c byte) bool {
	if d.excess++; d.excess > maxChunkExcess {
		return false
	}
	switch d.state {
	case chunkSize:
		return d.size(c)
	case chunkSpace:
		return d.space(c)
	case chunkExt:
		if c == '\r' {
			d.state = chunkSizeLF
			return true
		}
		return c >= ' ' && c != 0x7f || c == '\t'
	case chunkSizeLF:
		if d.state = chunkData; d.left == 0 {
			d.state = chunkTrailer
		}
		d.excess = max(d.excess-chunkUsual-2*d.left, 0)
		return c == '\n'
	case chunkDataCR:
		d.state = chunkDataLF
		return c == '\r'
	case chunkDataLF:
		d.state, d.digits = chunkSize, 0
		return c == '\n'
	case chunkTrailer: // skipped: nothing of it is used
		if c == '\r' {
			d.state = chunkLineLF
			return true
		}
		d.line = true
		return c >= ' ' && c != 0x7f || c == '\t'
	case chunkLineLF:
		d.done, d.line, d.state = !d.line, false, chunkTrailer
		return c == '\n'
	}
	return true
}

// size takes a byte of the line with the chunk's size.
func (d *chunked) size(c byte) bool {
	var v byte
	switch {
	case '0' <= c && c <= '9':
		v = c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		v = c | 0x20 - 'a' + 10
	default:
		d.state = chunkSpace
		return d.digits > 0 && d.space(c)
	}
	if d.digits++; d.digits > 15 { // 60 bits
		return false
	}
	d.left = d.left<<4 | int64(v)
	return true
}

// space takes a byte behind the size.
func (d *chunked) space(c byte) bool {
	switch c {
	case ' ', '\t':
	case ';':
		d.state = chunkExt
	case '\r':
		d.state = chunkSizeLF
	default:
		return false
	}
	return true
}
