package rag

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		if got := wordsIn(text); !slices.Equal(got, want) {
			t.Errorf("%q has the words %q, want %q", text, got, want)
		}
	}
	f("")
	f("The cats are at the DOGS!", "cat", "dog")
	f("policies, boxes; classes buses", "policy", "box", "class", "bus")
	f("analysis status this", "analysis", "status")
	f("Café naïve Größe", "cafe", "naive", "große")
	f("don't")
	f("ISO-27001 v2.5", "iso", "27001", "v2", "5")
	f("返品ポリシー", "返品", "品ポ", "ポリ", "リシ", "シー")
	f(strings.Repeat("x", maxWord+1)+" y2", "y2")
}

func TestSegment(t *testing.T) {
	texts := []string{"alpha beta beta", "", "beta gamma alpha beta beta"}
	g, err := readSegment(EncodeSegment(texts))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(g.lengths, []uint32{3, 0, 5}) || g.words != 8 {
		t.Errorf("lengths %v, %d words", g.lengths, g.words)
	}
	f := func(word string, want ...int) {
		t.Helper()
		n, r := g.find(word)
		var got []int
		for at := 0; n > 0; n-- {
			at += r.number(1 << 31)
			got = append(got, at, r.number(1<<31))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", word, got, want)
		}
	}
	f("alpha", 0, 1, 2, 1)
	f("beta", 0, 2, 2, 3)
	f("gamma", 2, 1)
	f("aaa")
	f("delta")
	f("zzz")
	if empty, err := readSegment(EncodeSegment(nil)); err != nil || len(empty.lengths) != 0 {
		t.Errorf("%+v, %v", empty, err)
	}
}

// A blob that was damaged is an error, never a panic or a read beyond it; one
// that is read can be searched.
func FuzzSegment(f *testing.F) {
	f.Add(EncodeSegment([]string{"alpha beta", "beta"}), "beta")
	f.Add(EncodeSegment(nil), "x")
	f.Add([]byte{1, 255, 255, 255, 255, 15}, "x")
	f.Fuzz(func(t *testing.T, blob []byte, word string) {
		g, err := readSegment(blob)
		if err != nil {
			return
		}
		n, r := g.find(word)
		at := 0
		for range n {
			at += r.number(1 << 31)
			r.number(1 << 31)
			if r.bad || at >= len(g.lengths) {
				t.Fatalf("%q is in chunk %d of %d", word, at, len(g.lengths))
			}
		}
		searchWords([]string{word}, []storeWords{{"vs_1", []*segment{g}}}, nil, 10)
	})
}

func segmentOf(t testing.TB, file string, texts ...string) *segment {
	t.Helper()
	g, err := readSegment(EncodeSegment(texts))
	if err != nil {
		t.Fatal(err)
	}
	g.file = file
	return g
}

// The scores are those of the formula, worked out by hand.
func TestBM25(t *testing.T) {
	store := storeWords{"vs_1", []*segment{segmentOf(t, "file-1", "apple pear", "apple apple plum plum plum", "cherry")}}
	got := searchWords([]string{"apple"}, []storeWords{store}, nil, 10)
	usual := 8.0 / 3
	rare := math.Log(1 + (3-2+0.5)/(2+0.5))
	score := func(often, length float64) float64 {
		return rare * often * 2.2 / (often + 1.2*(0.25+0.75*length/usual)) / (rare * 2.2)
	}
	want := []match{{Ref{"vs_1", "file-1", 1}, score(2, 5)}, {Ref{"vs_1", "file-1", 0}, score(1, 2)}}
	if score(2, 5) < score(1, 2) {
		slices.Reverse(want)
	}
	if len(got) != 2 {
		t.Fatalf("found %v", got)
	}
	for i := range got {
		if got[i].Ref != want[i].Ref || math.Abs(got[i].score-want[i].score) > 1e-12 {
			t.Errorf("%d: %v, want %v", i, got[i], want[i])
		}
	}
	// A word that is nowhere makes the rest worth less, and a question in another
	// order is the same question.
	less := searchWords([]string{"apple zebra"}, []storeWords{store}, nil, 10)
	if less[0].score >= got[0].score {
		t.Errorf("%v with a word that is nowhere, %v without", less[0].score, got[0].score)
	}
	if again := searchWords([]string{"zebra apple"}, []storeWords{store}, nil, 10); !slices.Equal(again, less) {
		t.Errorf("%v and %v", again, less)
	}
	if only := searchWords([]string{"apple"}, []storeWords{store}, func(_, file string) bool { return file == "file-2" }, 10); len(only) != 0 {
		t.Errorf("a file that is not allowed: %v", only)
	}
	if none := searchWords([]string{"the of and"}, []storeWords{store}, nil, 10); len(none) != 0 {
		t.Errorf("a question of no words found %v", none)
	}
}

// The scores of one company's stores are the same to the bit whether or not
// another has 10,000 documents: what is counted is counted in the stores that are
// searched. The same holds for other stores of the same company.
func TestBM25StaysInItsStores(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	vocabulary := strings.Fields(`invoice refund delivery contract warranty pension holiday laptop budget travel security badge printer canteen parking
		training bonus salary server backup password incident vendor audit policy manager customer product price discount`)
	text := func() string {
		var b strings.Builder
		for range 30 {
			b.WriteString(vocabulary[r.IntN(len(vocabulary))] + " ")
		}
		return b.String()
	}
	w := newLibrary(t)
	a, b := w.scope("a"), w.scope("b")
	for i := range 30 {
		w.put(a, "vs_a", fmt.Sprint("file-", i), text(), text())
	}
	questions := []string{"how is a refund of an invoice paid", "laptop warranty", "server backup password incident", "travel budget discount price"}
	ask := func() string {
		var out bytes.Buffer
		retriever := NewRetriever(w.options())
		for _, q := range questions {
			found, err := retriever.Search(t.Context(), a, Query{Text: []string{q}, Stores: w.stores(a, "vs_a"), TopK: 20, Keyword: true})
			if err != nil || len(found) < 5 {
				t.Fatalf("%d found, %v", len(found), err)
			}
			for _, p := range found {
				fmt.Fprintf(&out, "%s %d %x\n", p.FileID, p.Index, math.Float64bits(p.Score))
			}
		}
		return out.String()
	}
	before := ask()
	for i := range 10_000 {
		w.put(b, "vs_a", fmt.Sprint("file-", i), "refund laptop server travel invoice")
	}
	w.put(a, "vs_other", "file-other", strings.Repeat("refund invoice ", 500))
	if after := ask(); after != before {
		t.Errorf("scores changed:\n%s\n%s", before, after)
	}
	// And the other has what it has.
	found, err := NewRetriever(w.options()).Search(t.Context(), b, Query{Text: questions[:1], Stores: w.stores(b, "vs_a"), TopK: 3, Keyword: true})
	if err != nil || len(found) != 3 {
		t.Errorf("%v, %v", found, err)
	}
}

func TestLexicalVector(t *testing.T) {
	cos := func(a, b string) (sum float64) {
		x, y := lexicalVector(a), lexicalVector(b)
		for i := range x {
			sum += float64(x[i]) * float64(y[i])
		}
		return sum
	}
	if c := cos("return a product", "Products are returned"); c < 0.4 {
		t.Errorf("texts with words in common: %v", c)
	}
	if c := cos("return a product", "pension fund statement"); c > 0.2 {
		t.Errorf("texts without: %v", c)
	}
	for _, text := range []string{"", "the", "!!", "\xff\xfe", strings.Repeat("a", 5000)} {
		if c := cos(text, text); math.Abs(c-1) > 1e-5 {
			t.Errorf("%.20q is not a unit vector: %v", text, c)
		}
	}
	// The vectors are stored: they must stay what they are.
	v := lexicalVector("The quick brown fox")
	var first []string
	for i, x := range v {
		if x != 0 && len(first) < 4 {
			first = append(first, fmt.Sprintf("%d:%.4f", i, x))
		}
	}
	if got := strings.Join(first, " "); got != lexicalGolden {
		t.Errorf("the vector of a text has changed: %s, want %s. A new way of making them needs a new id", got, lexicalGolden)
	}
}

const lexicalGolden = "62:0.1544 72:-0.1544 82:-0.4796 95:-0.1544"
