package rag

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// eachWord gives fn the words of a text as keyword search compares them: in lower
// case, without marks above letters where those are in one rune with them, English
// plurals as the singular. Of scripts that are written without spaces each pair of
// neighbouring characters is a word. What all texts have (the, and, is) is left out.
// word is valid only until fn returns.
func eachWord(text string, fn func(word []byte)) {
	var room [64]byte
	word := room[:0]
	flush := func() {
		if len(word) > 0 && len(word) <= maxWord {
			if w := singular(word); !stopWords[string(w)] {
				fn(w)
			}
		}
		word = word[:0]
	}
	var before rune // of a script without spaces
	for _, c := range text {
		c = unicode.ToLower(c)
		switch {
		case dense(c):
			flush()
			if before != 0 {
				fn(utf8.AppendRune(utf8.AppendRune(room[:0], before), c))
			}
			before = c
			continue
		case unicode.IsLetter(c) || unicode.IsDigit(c):
			word = utf8.AppendRune(word, plain(c))
		case unicode.Is(unicode.Mn, c): // a mark of its own belongs to the letter before
		case (c == '\'' || c == '’') && len(word) > 0:
			// don't, l'eau: what follows is part of no word of its own that matters
			flush()
		default:
			flush()
		}
		before = 0
	}
	flush()
}

// maxWord bounds a word, in bytes. Longer ones are data, and nobody asks for them.
const maxWord = 64

// dense reports whether c is of a script that is written without spaces.
func dense(c rune) bool {
	return c == 0x30fc || c > 0x2e80 && unicode.In(c, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

// plain returns a letter of Latin script without its mark.
func plain(c rune) rune {
	if c < 0xc0 || c > 0x17f {
		return c
	}
	const from = "àáâãäåāăąçćĉċčďđèéêëēĕėęěĝğġģĥħìíîïĩīĭįĵķĺļľłñńņňòóôõöøōŏőŕŗřśŝşšţťŧùúûüũūŭůűųŵýÿŷźżž"
	const to__ = "aaaaaaaaacccccddeeeeeeeeegggghhiiiiiiiijkllllnnnnooooooooorrrsssstttuuuuuuuuuuwyyyzzz"
	if i := strings.IndexRune(from, c); i >= 0 {
		return rune(to__[i/2]) // each of from is two bytes
	}
	return c
}

// singular returns an English plural without its ending: Harman's S-stemmer (1991,
// "How effective is suffixing?"), which harms other languages little.
func singular(w []byte) []byte {
	n := len(w)
	if n < 4 || w[n-1] != 's' {
		return w
	}
	switch {
	case strings.HasSuffix(string(w), "ies") && w[n-4] != 'e' && w[n-4] != 'a':
		return append(w[:n-3], 'y')
	case w[n-2] == 'e' && n > 4 && (w[n-3] == 'x' || w[n-3] == 'h' || w[n-3] == 's' || w[n-3] == 'z'):
		return w[:n-2]
	case w[n-2] != 's' && w[n-2] != 'u' && w[n-2] != 'i':
		return w[:n-1]
	}
	return w
}

var stopWords = func() map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(`a about after all also am an and any are as at be been but by can could did do does for from had has have he her his how
		i if in into is it its me more my no not of on or our out she should so some than that the their them then there these they this to u up us was we were
		what when where which who whom whose why will with would you your
		don ll re s t ve
		aber als am an auch auf aus bei das dass dem den der des die ein eine einem einen einer er es fur haben hat ich ihr im in ist kann mit nach nicht oder
		sich sie sind uber um und von war was welche wer wie wir wird wo zu zum zur
		au aux ce ces dans de du elle en est et il je la le les leur mais ne nous on ou par pas pour que qui sa se ses son sont sur un une vous
		al con del el ella es esta lo los las no para pero por se si sin su sus una uno y`) {
		m[w] = true
	}
	return m
}()
