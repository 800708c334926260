package provider

import (
	"bytes"
	"regexp"
	"strings"
	"unicode"

	"bulkhead/openai"
)

// The model "grounded" has no knowledge and makes nothing up: it answers with the
// sentences of the passages that have most words in common with the question, each
// with the number of its passage, or says that there are none. So what it says
// shows what a model was given.

const (
	notGrounded       = "I do not know: nothing I was given answers this."
	groundedSentences = 2
)

// passageHead begins a passage: see openai.AppendPassages.
var passageHead = regexp.MustCompile(`(?m)^\[(\d+)\] .*$`)

// grounded returns the answer to a user's message.
func grounded(message string) string {
	passages, question, ok := openai.CutPassages([]byte(message))
	if !ok {
		return notGrounded
	}
	asked := map[string]bool{}
	for _, w := range wordsOf(string(question)) {
		asked[w] = true
	}
	type candidate struct {
		text, number string
		common       int
	}
	var best []candidate
	heads := passageHead.FindAllSubmatchIndex(passages, -1)
	for i, h := range heads {
		end := len(passages)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		for _, sentence := range sentences(string(bytes.TrimSpace(passages[h[1]:end]))) {
			c := candidate{sentence, string(passages[h[2]:h[3]]), 0}
			seen := map[string]bool{}
			for _, w := range wordsOf(sentence) {
				if asked[w] && !seen[w] {
					seen[w] = true
					c.common++
				}
			}
			if c.common > 0 {
				best = append(best, c)
			}
		}
	}
	var b strings.Builder
	for n := 0; n < groundedSentences && len(best) > 0; n++ {
		top := 0
		for i := range best {
			if best[i].common > best[top].common {
				top = i
			}
		}
		if n > 0 && 2*best[top].common < len(asked) {
			break // it has little to do with the question
		}
		if n > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(best[top].text + " [" + best[top].number + "]")
		best = append(best[:top], best[top+1:]...)
	}
	if b.Len() == 0 {
		return notGrounded
	}
	return b.String()
}

// wordsOf returns the words of a text that say something: of four letters and
// more, and numbers.
func wordsOf(text string) (all []string) {
	for _, w := range strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) }) {
		if len(w) >= 4 && !commonWords[w] || w[0] >= '0' && w[0] <= '9' {
			all = append(all, strings.TrimSuffix(w, "s"))
		}
	}
	return all
}

var commonWords = map[string]bool{"what": true, "when": true, "where": true, "which": true, "does": true, "with": true, "from": true, "that": true,
	"this": true, "have": true, "your": true, "long": true, "many": true, "much": true, "there": true, "they": true, "will": true, "would": true, "about": true}

// sentences cuts a text behind full stops, question and exclamation marks that a
// space follows, and at line breaks.
func sentences(text string) (all []string) {
	begin := 0
	add := func(end int) {
		if s := strings.TrimSpace(text[begin:end]); s != "" {
			all = append(all, s)
		}
		begin = end
	}
	for i := range len(text) {
		switch c := text[i]; {
		case c == '\n':
			add(i)
		case (c == '.' || c == '?' || c == '!') && i+1 < len(text) && (text[i+1] == ' ' || text[i+1] == '\n'):
			add(i + 1)
		}
	}
	add(len(text))
	return all
}
