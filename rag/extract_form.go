package rag

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/ledongthuc/pdf"
	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// parsePDF returns the text layer, page by page.
func parsePDF(b []byte) (string, error) {
	doc, err := pdf.NewReader(bytes.NewReader(b), int64(len(b)))
	if errors.Is(err, pdf.ErrInvalidPassword) {
		return "", invalid("The PDF needs a password.")
	}
	if err != nil {
		return "", invalid("The file is not a PDF, or it is damaged.")
	}
	var out strings.Builder
	for i := 1; i <= doc.NumPage(); i++ {
		page := doc.Page(i)
		if page.V.IsNull() {
			continue
		}
		text, err := page.GetPlainText(nil)
		if err != nil {
			return "", invalid("Page %d of the PDF is damaged.", i)
		}
		if text = strings.TrimSpace(text); text != "" {
			out.WriteString(text)
			out.WriteString("\n\n")
		}
	}
	if out.Len() == 0 {
		return "", &ExtractError{UnsupportedFile, "The PDF has no text layer: it is pictures of pages, perhaps a scan."}
	}
	return out.String(), nil
}

// Bounds of a DOCX. What it claims of its sizes is not believed.
const (
	docxEntries = 10_000
	docxRatio   = 200 // what is unpacked, compared with the file
	docxLeast   = 16 << 20
	xmlDepth    = 200
)

// parseDOCX returns the paragraphs, headings and tables of the document itself.
func parseDOCX(b []byte) (string, error) {
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return "", invalid("The file is not a DOCX, or it is damaged.")
	}
	if len(z.File) > docxEntries {
		return "", invalid("The DOCX has more than %d parts.", docxEntries)
	}
	for _, f := range z.File {
		if f.Name != "word/document.xml" {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return "", invalid("The DOCX is damaged.")
		}
		defer r.Close()
		most := max(int64(len(b))*docxRatio, docxLeast)
		return parseWord(&capped{r, most})
	}
	return "", invalid("The DOCX has no document in it.")
}

// capped is a reader that fails beyond a limit.
type capped struct {
	r    io.Reader
	left int64
}

var errUnpacked = invalid("The file unpacks to much more than its own size.")

func (c *capped) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errUnpacked
	}
	n, err := c.r.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, err
}

// parseWord reads the XML of a Word document.
func parseWord(r io.Reader) (string, error) {
	d := xml.NewDecoder(r)
	var out, line strings.Builder
	depth, level, inText := 0, 0, false
	var cells []string // of the table row that is being read
	rows := 0          // tables within tables
	end := func() {    // of a paragraph
		text := strings.TrimSpace(line.String())
		line.Reset()
		switch {
		case text == "":
		case rows > 0:
			if n := len(cells) - 1; n >= 0 {
				cells[n] = strings.TrimSpace(cells[n] + " " + text)
			}
		case level > 0:
			fmt.Fprintf(&out, "%s %s\n\n", strings.Repeat("#", level), text)
		default:
			out.WriteString(text + "\n\n")
		}
		level = 0
	}
	for {
		token, err := d.Token()
		if err == io.EOF {
			end()
			return out.String(), nil
		}
		if errors.Is(err, errUnpacked) {
			return "", errUnpacked
		}
		if err != nil {
			return "", invalid("The DOCX is damaged: its document is not XML.")
		}
		switch e := token.(type) {
		case xml.StartElement:
			if depth++; depth > xmlDepth {
				return "", invalid("The document in the DOCX is nested deeper than %d.", xmlDepth)
			}
			switch e.Name.Local {
			case "t":
				inText = true
			case "tab":
				line.WriteByte('\t')
			case "br", "cr":
				line.WriteByte('\n')
			case "pStyle":
				level = max(level, styleLevel(e))
			case "tr":
				rows++
			case "tc":
				cells = append(cells, "")
			}
		case xml.EndElement:
			depth--
			switch e.Name.Local {
			case "t":
				inText = false
			case "p":
				end()
			case "tr":
				if rows--; rows == 0 {
					out.WriteString(strings.Join(cells, " | ") + "\n")
					cells = nil
				}
			case "tbl":
				if rows == 0 {
					out.WriteByte('\n')
				}
			}
		case xml.CharData:
			if inText {
				line.Write(e)
			}
		}
	}
}

// styleLevel returns the level of a heading's style, 0 for another.
func styleLevel(e xml.StartElement) int {
	for _, a := range e.Attr {
		if a.Name.Local != "val" {
			continue
		}
		if a.Value == "Title" {
			return 1
		}
		if n, ok := strings.CutPrefix(a.Value, "Heading"); ok {
			if level, err := strconv.Atoi(n); err == nil && level >= 1 && level <= 6 {
				return level
			}
		}
	}
	return 0
}

// hidden are elements whose text nobody reads.
var hidden = map[atom.Atom]bool{atom.Script: true, atom.Style: true, atom.Noscript: true, atom.Template: true, atom.Svg: true, atom.Iframe: true,
	atom.Select: true, atom.Textarea: true}

// broken are elements before and behind which a line ends.
var broken = map[atom.Atom]string{atom.P: "\n\n", atom.Div: "\n", atom.Section: "\n\n", atom.Article: "\n\n", atom.Ul: "\n\n", atom.Ol: "\n\n", atom.Table: "\n\n",
	atom.Tr: "\n", atom.Br: "\n", atom.Li: "\n", atom.Blockquote: "\n\n", atom.Pre: "\n\n", atom.Title: "\n\n", atom.Dl: "\n\n", atom.Dt: "\n", atom.Dd: "\n",
	atom.H1: "\n\n", atom.H2: "\n\n", atom.H3: "\n\n", atom.H4: "\n\n", atom.H5: "\n\n", atom.H6: "\n\n", atom.Hr: "\n\n", atom.Header: "\n\n", atom.Footer: "\n\n",
	atom.Main: "\n\n", atom.Nav: "\n\n", atom.Figcaption: "\n\n", atom.Td: "", atom.Th: ""}

// parseHTML returns what a page shows, with headings as in Markdown. It reads the
// tokens one after the other, so that no nesting is too deep.
func parseHTML(text string) (string, error) {
	z := html.NewTokenizer(strings.NewReader(text))
	z.SetMaxBuf(1 << 20)
	var out strings.Builder
	skip, depth := atom.Atom(0), 0 // the element that is not read, and how often it was opened within itself
	pre := 0
	for {
		switch kind := z.Next(); kind {
		case html.ErrorToken:
			if err := z.Err(); err != io.EOF {
				return "", invalid("The HTML has a part of more than 1 MiB that does not end.")
			}
			return squeeze(out.String()), nil
		case html.StartTagToken, html.SelfClosingTagToken, html.EndTagToken:
			name, _ := z.TagName()
			a := atom.Lookup(name)
			closes := kind == html.EndTagToken
			if skip != 0 {
				if a == skip && kind == html.StartTagToken {
					depth++
				} else if a == skip && closes {
					if depth--; depth == 0 {
						skip = 0
					}
				}
				continue
			}
			if hidden[a] {
				if kind == html.StartTagToken {
					skip, depth = a, 1
				}
				continue
			}
			between, known := broken[a]
			if !known {
				continue
			}
			out.WriteString(between)
			switch {
			case a == atom.Pre && !closes:
				pre++
			case a == atom.Pre:
				pre = max(pre-1, 0)
			case closes:
			case a == atom.Td || a == atom.Th:
				out.WriteString(" | ")
			case a == atom.Li:
				out.WriteString("- ")
			case len(name) == 2 && name[0] == 'h' && name[1] >= '1' && name[1] <= '6':
				out.WriteString(strings.Repeat("#", int(name[1]-'0')) + " ")
			}
		case html.TextToken:
			if skip != 0 {
				continue
			}
			words := string(z.Text())
			if words = html.UnescapeString(words); pre == 0 {
				words = folded(words)
			}
			out.WriteString(words)
		}
	}
}

// folded makes one space of any, as a page shows it.
func folded(text string) string {
	words := strings.Join(strings.Fields(text), " ")
	if words == "" {
		if text == "" {
			return ""
		}
		return " "
	}
	if strings.TrimLeft(text, " \t\r\n\f") != text {
		words = " " + words
	}
	if strings.TrimRight(text, " \t\r\n\f") != text {
		words += " "
	}
	return words
}

// squeeze takes out spaces at the ends of lines and more than one empty line.
func squeeze(text string) string {
	var out strings.Builder
	empty := 0
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, " \t")
		if strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "  ") {
			line = line[1:]
		}
		line = strings.TrimPrefix(line, "| ")
		if line == "" {
			if empty++; empty > 1 {
				continue
			}
		} else {
			empty = 0
		}
		out.WriteString(line + "\n")
	}
	return strings.TrimSpace(out.String()) + "\n"
}

// parseCSV returns a paragraph for each row, each value with the name of its column.
func parseCSV(text string) (string, error) {
	first, _, _ := strings.Cut(text, "\n")
	d := csv.NewReader(strings.NewReader(text))
	d.LazyQuotes, d.FieldsPerRecord, d.ReuseRecord = true, -1, true
	d.Comma = ','
	for _, c := range []rune{';', '\t'} {
		if strings.Count(first, string(c)) > strings.Count(first, string(d.Comma)) {
			d.Comma = c
		}
	}
	var names []string
	var out strings.Builder
	for {
		row, err := d.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", invalid("The CSV is damaged: %s.", strings.TrimPrefix(err.Error(), "parse error on "))
		}
		if names == nil {
			names = append([]string{}, row...)
			continue
		}
		for i, v := range row {
			if v = strings.TrimSpace(v); v == "" {
				continue
			}
			if i < len(names) && names[i] != "" {
				out.WriteString(strings.TrimSpace(names[i]) + ": ")
			}
			out.WriteString(v + "\n")
		}
		out.WriteByte('\n')
	}
	if out.Len() == 0 {
		return strings.Join(names, ", "), nil
	}
	return out.String(), nil
}

// jsonDepth bounds the nesting of JSON.
const jsonDepth = 100

// parseJSON returns a line for each value, with the path to it. There may be several
// values, as in JSONL.
func parseJSON(text string) (string, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var out strings.Builder
	for {
		err := jsonLines(&out, d, "", 0)
		if err == io.EOF {
			return out.String(), nil
		}
		if why, ok := errors.AsType[*ExtractError](err); ok {
			return "", why
		}
		if err != nil {
			return "", invalid("The file is not JSON.")
		}
		out.WriteByte('\n')
	}
}

// jsonLines writes the lines of the next value.
func jsonLines(out *strings.Builder, d *json.Decoder, at string, depth int) error {
	if depth > jsonDepth {
		return invalid("The JSON is nested deeper than %d.", jsonDepth)
	}
	token, err := d.Token()
	if err != nil {
		if err == io.EOF && depth > 0 {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	open, isDelim := token.(json.Delim)
	if !isDelim {
		if at != "" {
			out.WriteString(at + ": ")
		}
		if token == nil {
			token = "null"
		}
		fmt.Fprintln(out, token)
		return nil
	}
	for d.More() {
		next := at
		if open == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			if next != "" {
				next += "."
			}
			next += name
		}
		if len(next) > 1000 {
			return invalid("The JSON has a path of more than 1000 bytes.")
		}
		if err := jsonLines(out, d, next, depth+1); err != nil {
			return err
		}
	}
	if _, err = d.Token(); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
