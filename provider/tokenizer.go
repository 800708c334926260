package provider

import (
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tiktoken-go/tokenizer/codec"
)

// The vocabularies, read when the first text needs one: some 25 ms and 5 MB each.
// They are safe for concurrent use.
var (
	o200k  = sync.OnceValue(codec.NewO200kBase)
	cl100k = sync.OnceValue(codec.NewCl100kBase)
)

// tokenizerPiece is how much text is counted at once, in bytes: the pattern that
// splits words looks back over white space, which costs the square of its length.
const tokenizerPiece = 4 << 10

// CountTokens returns how many tokens the model's own tokenizer makes of text,
// within one in a thousand; known is false where the package does not have it.
// It takes some 200 us for a KB, up to 2 ms for what is all white space: it is
// not for the path of a request.
func CountTokens(model, text string) (n int64, known bool) {
	vocabulary := vocabularyOf(model)
	if vocabulary == nil {
		return 0, false
	}
	c := vocabulary()
	for text != "" {
		var piece string
		piece, text = cutPiece(text)
		count, err := c.Count(piece)
		if err != nil {
			return 0, false
		}
		n += int64(count)
	}
	return n, true
}

// Counts reports whether CountTokens knows the model.
func Counts(model string) bool { return vocabularyOf(model) != nil }

// cutPiece cuts a piece off text, before a space that begins a word if there is
// one in the second half: that is where tokens begin too.
func cutPiece(text string) (piece, rest string) {
	if len(text) <= tokenizerPiece {
		return text, ""
	}
	for i := tokenizerPiece; i > tokenizerPiece/2; i-- {
		if text[i] == ' ' && text[i-1] > ' ' && text[i+1:] != "" && text[i+1] > ' ' {
			return text[:i], text[i:]
		}
	}
	i := tokenizerPiece
	for i > tokenizerPiece-utf8.UTFMax && !utf8.RuneStart(text[i]) {
		i--
	}
	return text[:i], text[i:]
}

// The models whose vocabulary OpenAI has published (tiktoken, "model.py"), by the
// beginning of their names, the longer first; hosts put the maker's name before.
var vocabularies = []struct {
	prefix string
	get    func() *codec.Codec
}{
	{"gpt-4o", o200k}, {"chatgpt-4o", o200k}, {"gpt-4.1", o200k}, {"gpt-4.5", o200k},
	{"gpt-5", o200k}, {"gpt-oss", o200k},
	{"o1", o200k}, {"o3", o200k}, {"o4-mini", o200k},
	{"gpt-4", cl100k}, {"gpt-3.5-turbo", cl100k}, {"gpt-35-turbo", cl100k},
	{"text-embedding-3-", cl100k}, {"text-embedding-ada-002", cl100k},
}

func vocabularyOf(model string) func() *codec.Codec {
	model = strings.TrimPrefix(model, "openai/")
	for i := range vocabularies {
		v := &vocabularies[i]
		rest, ok := strings.CutPrefix(model, v.prefix)
		// "gpt-5-mini" is one of its family, "gpt-5.6" and "o30" are not.
		if ok && (rest == "" || rest[0] == '-' || strings.HasSuffix(v.prefix, "-")) {
			return v.get
		}
	}
	return nil
}
