package ledger

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// exported is an entry as it is exported: as an object in JSON, or as a line of
// CSV with the same names in the same order. Money is a decimal number of USD.
type exported struct {
	ID          string `json:"id"`
	StartedAt   string `json:"started_at"` // RFC 3339, UTC, to the microsecond
	EndedAt     string `json:"ended_at"`
	RequestID   string `json:"request_id"`
	ProjectID   string `json:"project_id"`
	KeyID       string `json:"api_key_id"`
	AgentID     string `json:"agent_id"`
	UserID      string `json:"user_id"`
	Kind        string `json:"kind"`
	Provider    string `json:"provider"`
	Model       string `json:"model"`
	Requested   string `json:"requested_model"`
	Tier        string `json:"service_tier"`
	Outcome     string `json:"outcome"`
	Rank        string `json:"rank"`
	Status      int    `json:"http_status"`
	First       bool   `json:"first_attempt"`
	Lent        bool   `json:"lent"`
	Input       int64  `json:"input_tokens"`
	CachedInput int64  `json:"input_cached_tokens"`
	CacheWrite  int64  `json:"input_cache_write_tokens"`
	AudioInput  int64  `json:"input_audio_tokens"`
	ImageInput  int64  `json:"input_image_tokens"`
	Output      int64  `json:"output_tokens"`
	Reasoning   int64  `json:"output_reasoning_tokens"`
	AudioOutput int64  `json:"output_audio_tokens"`
	ImageOutput int64  `json:"output_image_tokens"`
	Priced      bool   `json:"priced"`
	Cost        string `json:"cost_usd"`
	Low         string `json:"cost_low_usd"`
	High        string `json:"cost_high_usd"`
}

// ranks are the names of the ranks.
var ranks = map[Rank]string{ByLease: "swept", Estimate: "estimate", Final: "final"}

const exportTime = "2006-01-02T15:04:05.000000Z"

func export(e *Entry) exported {
	u := &e.Usage
	x := exported{
		ID: e.ID, StartedAt: e.StartedAt.UTC().Format(exportTime), EndedAt: e.EndedAt.UTC().Format(exportTime), RequestID: e.RequestID,
		ProjectID: e.ProjectID, KeyID: e.KeyID, AgentID: e.AgentID, UserID: e.UserID, Kind: e.Kind, Provider: e.Provider, Model: e.Model,
		Requested: e.Requested, Tier: e.Tier, Outcome: string(e.Outcome), Rank: ranks[e.Rank], Status: e.Status, First: e.First, Lent: e.Lent,
		Input: u.Input, CachedInput: u.CachedInput, CacheWrite: u.CacheWrite, AudioInput: u.AudioInput, ImageInput: u.ImageInput,
		Output: u.Output, Reasoning: u.Reasoning, AudioOutput: u.AudioOutput, ImageOutput: u.ImageOutput,
		Priced: e.Priced, Cost: FormatUSD(e.CostNano), Low: FormatUSD(e.LowNano), High: FormatUSD(e.HighNano),
	}
	if e.Lent { // what a lent credential has in its caches is not told
		x.CachedInput, x.CacheWrite = 0, 0
	}
	return x
}

// AppendJSON appends the entry as one line with an object in JSON.
func AppendJSON(dst []byte, e *Entry) []byte {
	b, err := json.Marshal(export(e))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return append(append(dst, b...), '\n')
}

// AppendCSVHeader appends the line with the names of the columns of AppendCSV.
func AppendCSVHeader(dst []byte) []byte {
	t := reflect.TypeFor[exported]()
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = t.Field(i).Tag.Get("json")
	}
	return appendLine(dst, names)
}

// AppendCSV appends the entry as one line of CSV (RFC 4180, but for a line's end,
// which is a newline). Text that a spreadsheet would take for a formula begins
// with an apostrophe: models are named by clients and providers.
func AppendCSV(dst []byte, e *Entry) []byte {
	v := reflect.ValueOf(export(e))
	values := make([]string, v.NumField())
	for i := range values {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			values[i] = plainText(f.String())
		case reflect.Bool:
			values[i] = strconv.FormatBool(f.Bool())
		default:
			values[i] = strconv.FormatInt(f.Int(), 10)
		}
	}
	return appendLine(dst, values)
}

// plainText returns s so that no program that opens a table computes it.
func plainText(s string) string {
	if t := strings.TrimLeft(s, " \u00a0\u3000\ufeff\x00"); t != "" && strings.ContainsRune("=+-@\t\r\n|%＝＋－＠", []rune(t)[0]) {
		return "'" + s
	}
	return s
}

func appendLine(dst []byte, values []string) []byte {
	b := bytes.NewBuffer(dst)
	w := csv.NewWriter(b)
	if err := w.Write(values); err != nil {
		panic("BUG: " + err.Error())
	}
	w.Flush()
	return b.Bytes()
}
