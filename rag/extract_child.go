package rag

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// ExtractChild is the child process: it limits itself, reads a file from its
// standard input and writes its text. args are what Extractor gives it. It returns
// the process' exit code.
func ExtractChild(args []string) int {
	if len(args) != 4 {
		fmt.Fprintln(os.Stderr, "this is for the gateway's own use")
		return 2
	}
	var figures [3]int64
	for i := range figures {
		n, err := strconv.ParseInt(args[i+1], 10, 64)
		if err != nil || n <= 0 {
			return 2
		}
		figures[i] = n
	}
	memory, seconds, most := figures[0], figures[1], figures[2]
	if err := limitProcess(memory, seconds); err != nil {
		return exitLimits
	}
	debug.SetMemoryLimit(memory * 3 / 4)
	text, err := parse(args[0], os.Stdin, memory/4)
	if err == nil && int64(len(text)) > most {
		err = invalid("The file has more than %d bytes of text. Split it.", most)
	}
	kind := byte(saysText)
	if why, ok := errors.AsType[*ExtractError](err); ok {
		if kind, text = saysInvalid, why.Message; why.Code == UnsupportedFile {
			kind = saysUnsupported
		}
	} else if err != nil {
		return 4
	}
	if _, err := os.Stdout.Write(append([]byte{kind}, text...)); err != nil {
		return 5
	}
	return 0
}

// parse returns the text of a file that is no plain text. A panic of a parser says
// that the file is damaged.
func parse(mediaType string, r io.Reader, limit int64) (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			text, err = "", invalid("The file is damaged.")
		}
	}()
	b, err := readUpTo(r, limit)
	if err != nil {
		return "", err
	}
	switch mediaType {
	case typePDF:
		text, err = parsePDF(b)
	case typeDOCX:
		text, err = parseDOCX(b)
	default:
		if text, err = decodeText(b); err != nil {
			return "", err
		}
		switch mediaType {
		case typeHTML:
			text, err = parseHTML(text)
		case typeCSV:
			text, err = parseCSV(text)
		case typeJSON:
			text, err = parseJSON(text)
		default:
			return "", &ExtractError{UnsupportedFile, "Nothing is read in files of this type."}
		}
	}
	if err == nil {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	return text, err
}

// decodeText returns text that is UTF-8 or, with a mark at its start, UTF-16.
func decodeText(b []byte) (string, error) {
	if wide(b) {
		big := b[0] == 0xfe
		units := make([]uint16, 0, len(b)/2)
		for b = b[2:]; len(b) >= 2; b = b[2:] {
			if big {
				units = append(units, uint16(b[0])<<8|uint16(b[1]))
			} else {
				units = append(units, uint16(b[1])<<8|uint16(b[0]))
			}
		}
		return string(utf16.Decode(units)), nil
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(b) {
		return "", invalid("The file is not UTF-8 text.")
	}
	return string(b), nil
}
