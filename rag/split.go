package rag

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"bulkhead/fault"
)

// Chunking is how a file is split: OpenAI's chunking_strategy.
type Chunking struct {
	Static  bool // the client chose the sizes
	Tokens  int  // most of one chunk
	Overlap int  // tokens that a chunk repeats of the one before, at most
}

// AutoChunking is OpenAI's default.
func AutoChunking() Chunking { return Chunking{Tokens: 800, Overlap: 400} }

// Check refuses sizes that OpenAI refuses.
func (c Chunking) Check(at string) error {
	if c.Tokens < 100 || c.Tokens > 4096 {
		return fault.Field(at+".static.max_chunk_size_tokens", "max_chunk_size_tokens is from 100 to 4096.")
	}
	if c.Overlap < 0 || c.Overlap > c.Tokens/2 {
		return fault.Field(at+".static.chunk_overlap_tokens", "chunk_overlap_tokens is from 0 to half of max_chunk_size_tokens.")
	}
	return nil
}

// unit is what is not split further: a sentence, as a rule.
type unit struct {
	text    string
	before  string // what stands between it and the one before
	tokens  int
	rest    int    // tokens of its paragraph from here on
	heading string // that it stands below, with those above; "" for none
	section bool   // a heading begins here
}

// Split splits a text into chunks of at most c.Tokens, as tokens counts them. They
// end where a section, a paragraph or at least a sentence ends, if one can; a chunk
// from inside a section begins with its headings, and one that was cut off for its
// size with the end of the one before. The same text gives the same chunks.
func Split(text string, c Chunking, tokens func([]byte) int64) []string {
	s := splitter{c: c, count: func(t string) int { return int(tokens([]byte(t))) }}
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "")
	return s.pack(s.units(strings.ReplaceAll(text, "\r\n", "\n")))
}

type splitter struct {
	c     Chunking
	count func(string) int
}

// headingShare is which part of a chunk the headings above it may take: one of so
// many.
const headingShare = 5

// cutCost is how many tokens more than each for itself two pieces can have that
// nothing stands between: in a long run of letters each costs more.
const cutCost = 6

// units takes a text apart.
func (s *splitter) units(text string) (all []unit) {
	var above [6]string
	heading := ""
	for _, p := range paragraphs(text) {
		level := p.level
		if level > 0 {
			above[level-1] = strings.TrimSpace(strings.TrimLeft(p.text, "#"))
			clear(above[level:])
		}
		first := len(all)
		for i, piece := range s.pieces(p.text, s.c.Tokens-s.c.Tokens/headingShare-1-cutCost) {
			u := unit{text: piece.text, before: piece.before, tokens: s.count(piece.text), heading: heading}
			if i > 0 && u.before == "" {
				u.tokens += cutCost
			}
			all = append(all, u)
		}
		if first == len(all) {
			continue
		}
		all[first].before = "\n\n"
		for i, rest := len(all)-1, 0; i >= first; i-- {
			rest += all[i].tokens + 1
			all[i].rest = rest
		}
		if level > 0 {
			all[first].section, all[first].heading = true, s.headings(above[:level-1])
			heading = s.headings(above[:])
		}
	}
	return all
}

// headings returns a line that says below which headings a chunk stands, as far as
// there is room.
func (s *splitter) headings(above []string) string {
	line := ""
	for i := len(above) - 1; i >= 0; i-- {
		if above[i] == "" {
			continue
		}
		longer := above[i]
		if line != "" {
			longer += " > " + line
		}
		if s.count(longer)+2 > s.c.Tokens/headingShare {
			break
		}
		line = longer
	}
	return line
}

// paragraph is what stands between empty lines. A heading is one of its own.
type paragraph struct {
	text  string
	level int // of a heading, 1 to 6
}

func paragraphs(text string) (all []paragraph) {
	var lines []string
	end := func(level int) {
		if len(lines) > 0 {
			all = append(all, paragraph{strings.Join(lines, "\n"), level})
		}
		lines = lines[:0]
	}
	fenced := false // in code
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRightFunc(line, unicode.IsSpace)
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		level := 0
		if !fenced {
			level = headingLevel(line)
		}
		switch {
		case line == "":
			end(0)
		case level > 0:
			end(0)
			lines = append(lines, line)
			end(level)
		default:
			lines = append(lines, line)
		}
	}
	end(0)
	return all
}

// headingLevel returns 1 to 6 for a heading in Markdown, 0 for what is none.
func headingLevel(line string) int {
	n := len(line) - len(strings.TrimLeft(line, "#"))
	if n == 0 || n > 6 || len(line) == n || line[n] != ' ' {
		return 0
	}
	return n
}

// piece is a part of a paragraph, with what stands before it there.
type piece struct{ text, before string }

// pieces splits a paragraph into its sentences, those that have more tokens than
// most into words, and those that still do into parts.
func (s *splitter) pieces(p string, most int) (all []piece) {
	for _, sentence := range sentences(p) {
		if s.count(sentence.text) <= most {
			all = append(all, sentence)
			continue
		}
		before := sentence.before
		for _, word := range wordsOf(sentence.text) {
			if word.before == "" {
				word.before = before
			}
			for _, part := range s.parts(word.text, most) {
				all = append(all, piece{part, word.before})
				word.before = ""
			}
		}
	}
	return all
}

// sentences splits a paragraph behind ".", "!", "?" and line ends, and what other
// scripts have for them.
func sentences(p string) (all []piece) {
	before, begin := "", 0
	for i, r := range p {
		if i < begin {
			continue
		}
		end, next, between := i+utf8.RuneLen(r), 0, ""
		switch r {
		case '.', '!', '?', '…', '"', ')', '”', '»':
			if strings.ContainsRune(`")”»`, r) && !endsSentence(p[begin:i]) {
				continue
			}
			next, between = len(p)-len(strings.TrimLeft(p[end:], " ")), " "
			if next == end {
				continue
			}
		case '。', '！', '？', '｡':
			next = end
		case '\n':
			end, next, between = i, i+1, "\n"
		default:
			continue
		}
		if end > begin {
			all = append(all, piece{p[begin:end], before})
		}
		before, begin = between, next
	}
	if begin < len(p) {
		all = append(all, piece{p[begin:], before})
	}
	return all
}

// endsSentence reports whether the last sign of text ends a sentence, before a
// quotation mark or a bracket.
func endsSentence(text string) bool {
	return text != "" && strings.ContainsRune(".!?", rune(text[len(text)-1]))
}

// wordsOf splits at spaces.
func wordsOf(text string) (all []piece) {
	for i, word := range strings.Fields(text) {
		all = append(all, piece{word, " "})
		if i == 0 {
			all[0].before = ""
		}
	}
	return all
}

// parts cuts a word that has more tokens than most between two characters.
func (s *splitter) parts(word string, most int) (all []string) {
	for word != "" {
		n := min(len(word), 4*most)
		for {
			for n < len(word) && n > 0 && !utf8.RuneStart(word[n]) {
				n--
			}
			if n <= utf8.UTFMax || s.count(word[:n]) <= most {
				break
			}
			n = n * 3 / 4
		}
		if n == 0 {
			_, n = utf8.DecodeRuneInString(word)
		}
		all = append(all, word[:n])
		word = word[n:]
	}
	return all
}

// pack joins units to chunks.
func (s *splitter) pack(units []unit) (chunks []string) {
	begin, size := 0, 0 // of the chunk that is being made
	repeated := 0       // units at its start that the one before has too
	end := func(i int) {
		chunks = append(chunks, s.join(units[begin:i]))
	}
	for i := range units {
		u := &units[i]
		fits := size+u.tokens+1 <= s.c.Tokens
		fresh := i - begin - repeated
		switch {
		case fresh > 0 && u.section && size >= s.c.Tokens/4:
			end(i)
			begin, repeated, size = i, 0, 0
		case fresh > 0 && (!fits || u.before == "\n\n" && size+u.rest > s.c.Tokens && u.rest <= s.c.Tokens/2 && size >= s.c.Tokens/2):
			end(i)
			begin = s.overlap(units, begin, i)
			repeated = i - begin
			size = s.size(units, begin, i)
		}
		for repeated > 0 && size+u.tokens+1 > s.c.Tokens {
			begin, repeated = begin+1, repeated-1
			size = s.size(units, begin, i)
		}
		if i == begin {
			size = s.prefixOf(u)
		}
		size += u.tokens + 1
	}
	if begin < len(units) {
		end(len(units))
	}
	return chunks
}

// overlap returns from which unit on the end of a chunk is repeated.
func (s *splitter) overlap(units []unit, begin, end int) int {
	at, sum := end, 0
	for at > begin+1 && sum+units[at-1].tokens+1 <= s.c.Overlap {
		at--
		sum += units[at].tokens + 1
	}
	return at
}

// size returns the tokens of a chunk of units.
func (s *splitter) size(units []unit, begin, end int) (n int) {
	if begin == end {
		return 0
	}
	n = s.prefixOf(&units[begin])
	for _, u := range units[begin:end] {
		n += u.tokens + 1
	}
	return n
}

// prefixOf returns the tokens of the headings above a chunk that begins with u.
func (s *splitter) prefixOf(u *unit) int {
	if u.heading == "" {
		return 0
	}
	return s.count(u.heading) + 2
}

// join returns the text of a chunk.
func (s *splitter) join(units []unit) string {
	var b strings.Builder
	if units[0].heading != "" {
		b.WriteString(units[0].heading)
		b.WriteString("\n\n")
	}
	for i := range units {
		if i > 0 {
			b.WriteString(units[i].before)
		}
		b.WriteString(units[i].text)
	}
	return b.String()
}
