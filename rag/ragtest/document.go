// Package ragtest makes documents for tests.
package ragtest

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/xml"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
)

// PDF returns a PDF with a line of text on each page; "" is a page without text.
// Texts are ASCII without brackets and backslashes.
func PDF(pages ...string) []byte {
	var b bytes.Buffer
	var at []int
	object := func(format string, a ...any) {
		at = append(at, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n"+format+"\nendobj\n", append([]any{len(at)}, a...)...)
	}
	b.WriteString("%PDF-1.4\n")
	var kids []string
	for i := range pages {
		kids = append(kids, fmt.Sprint(4+2*i, " 0 R"))
	}
	object("<< /Type /Catalog /Pages 2 0 R >>")
	object("<< /Type /Pages /Kids [%s] /Count %d >>", strings.Join(kids, " "), len(pages))
	object("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
	for i, text := range pages {
		object("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>", 5+2*i)
		stream := "BT /F1 12 Tf 72 720 Td (" + text + ") Tj ET"
		if text == "" {
			stream = "0 0 10 10 re f"
		}
		object("<< /Length %d >>\nstream\n%s\nendstream", len(stream), stream)
	}
	start := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(at)+1)
	for _, offset := range at {
		fmt.Fprintf(&b, "%010d 00000 n \n", offset)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(at)+1, start)
	return b.Bytes()
}

// DOCX returns a Word document of paragraphs; one that begins with "# " is a heading.
func DOCX(paragraphs ...string) []byte {
	var x strings.Builder
	x.WriteString(`<?xml version="1.0" encoding="UTF-8"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>`)
	for _, p := range paragraphs {
		x.WriteString("<w:p>")
		if heading, ok := strings.CutPrefix(p, "# "); ok {
			x.WriteString(`<w:pPr><w:pStyle w:val="Heading1"/></w:pPr>`)
			p = heading
		}
		x.WriteString(`<w:r><w:t xml:space="preserve">`)
		xml.EscapeText(&x, []byte(p))
		x.WriteString("</w:t></w:r></w:p>")
	}
	x.WriteString("</w:body></w:document>")
	return Zip(map[string]string{
		"[Content_Types].xml": `<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>`,
		"word/document.xml":   x.String(),
	})
}

// ZipBomb returns an archive of one file: head, then n times part, then tail. It
// compresses part once, so that a large one costs nothing to make.
func ZipBomb(name, head, part string, n int, tail string) []byte {
	deflate := func(text string, last bool) []byte {
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, flate.BestSpeed)
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if end := w.Flush; err == nil {
			if last {
				end = w.Close
			}
			err = end()
		}
		if err != nil {
			panic(err)
		}
		return b.Bytes()
	}
	sum := crc32.NewIEEE()
	_, _ = io.WriteString(sum, head)
	for range n {
		_, _ = io.WriteString(sum, part)
	}
	_, _ = io.WriteString(sum, tail)
	packed := slices.Concat(deflate(head, false), bytes.Repeat(deflate(part, false), n), deflate(tail, true))
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.CreateRaw(&zip.FileHeader{
		Name: name, Method: zip.Deflate, CRC32: sum.Sum32(),
		CompressedSize64: uint64(len(packed)), UncompressedSize64: uint64(len(head) + n*len(part) + len(tail)),
	})
	if err == nil {
		_, err = w.Write(packed)
	}
	if err = errors.Join(err, z.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Zip returns an archive of files.
func Zip(files map[string]string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			panic(err)
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}
