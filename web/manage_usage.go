package web

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/tenant"
)

// usagePage is OpenAI's page of buckets of time.
type usagePage struct {
	Object   string        `json:"object"`
	Data     []usageBucket `json:"data"`
	HasMore  bool          `json:"has_more"`
	NextPage *string       `json:"next_page"`
}

type usageBucket struct {
	Object  string `json:"object"`
	Start   int64  `json:"start_time"`
	End     int64  `json:"end_time"`
	Results []any  `json:"results"`
}

// maxUsageRows bounds the results of one page.
const maxUsageRows = 10_000

// usageKinds are the kinds of calls that each of OpenAI's addresses is about.
var usageKinds = map[string][]string{
	"completions": {"chat", "completions", "responses", "messages"},
	"embeddings":  {"embeddings"},
	"moderations": {"moderations"},
}

// width is a bucket_width with how many buckets a page has.
type width struct {
	of            time.Duration
	standard, max int
}

var usageWidths = map[string]width{"1m": {time.Minute, 60, 1440}, "1h": {time.Hour, 24, 168}, "1d": {24 * time.Hour, 7, 31}}

// usageAsk is what one page of a request for usage or costs asks for.
type usageAsk struct {
	ledger.UsageQuery
	end    time.Time // of all pages
	groups []string
}

// parseUsage reads what usage and costs have in common. groups are the values of
// group_by that there are.
func (g *Gateway) parseUsage(r *request, widths map[string]width, groups ...string) (q usageAsk, err error) {
	name := r.query("bucket_width")
	if name == "" {
		name = "1d"
	}
	w, ok := widths[name]
	if !ok {
		return q, fault.Field("bucket_width", "bucket_width must be one of those that OpenAI documents here.")
	}
	q.Bucket, q.Rows = w.of, maxUsageRows
	if err := q.span(r, g.now()); err != nil {
		return q, err
	}
	limit := w.standard
	if text := r.query("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > w.max {
			return q, fault.Field("limit", "limit must be a whole number from 1 to %d.", w.max)
		}
	}
	if last := q.From.Add(time.Duration(limit) * w.of); last.Before(q.Until) {
		q.Until = last
	}
	for _, list := range []struct {
		name string
		to   *[]string
	}{{"project_ids", &q.Projects}, {"api_key_ids", &q.Keys}, {"group_by", &q.groups}} {
		if *list.to, err = r.list(list.name); err != nil {
			return q, err
		}
	}
	for _, by := range q.groups {
		if !slices.Contains(groups, by) {
			return q, fault.Field("group_by", "group_by cannot be %.64q here.", by)
		}
		switch by {
		case "project_id":
			q.By.Project = true
		case "api_key_id":
			q.By.Key = true
		case "user_id":
			q.By.User = true
		case "model":
			q.By.Model = true
		case "batch", "service_tier":
			q.By.Tier = true
		case "line_item":
			q.By.Model, q.By.Tier = true, true
		}
	}
	return q, nil
}

// span reads start_time, end_time and page. Buckets are whole, so the span is
// widened to them. Without an end it is the end of the bucket that runs.
func (q *usageAsk) span(r *request, now time.Time) error {
	start, err := unixParam(r, "start_time")
	if err != nil {
		return err
	}
	if start.IsZero() {
		return fault.Field("start_time", "start_time is required.")
	}
	if q.end, err = unixParam(r, "end_time"); err != nil {
		return err
	}
	if q.end.IsZero() {
		q.end = now
	}
	q.From, q.end = start.Truncate(q.Bucket), q.end.Add(q.Bucket-1).Truncate(q.Bucket)
	if page := r.query("page"); page != "" {
		from, end, ok := parseUsagePage(page)
		if !ok || from.Before(q.From) || from.After(end) || !from.Equal(from.Truncate(q.Bucket)) || !end.Equal(end.Truncate(q.Bucket)) {
			return fault.Field("page", "page must be the next_page of an answer to the same request.")
		}
		q.From, q.end = from, end
	}
	if q.end.Before(q.From) {
		return fault.Field("end_time", "end_time must not be before start_time.")
	}
	q.Until = q.end
	return nil
}

// unixParam reads a parameter that is a time in Unix seconds; zero if it is absent.
func unixParam(r *request, name string) (time.Time, error) {
	text := r.query(name)
	if text == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > maxUnix {
		return time.Time{}, fault.Field(name, "%s must be a time in whole Unix seconds.", name)
	}
	return time.Unix(n, 0).UTC(), nil
}

// list reads a parameter with many values, as the SDKs write it: name[] many times,
// or name.
func (r *request) list(name string) ([]string, error) {
	all := append(r.values(name+"[]"), r.values(name)...)
	if len(all) > maxFilter {
		return nil, fault.Field(name, "%s has more than %d values.", name, maxFilter)
	}
	for _, v := range all {
		if v == "" || len(v) > maxName {
			return nil, fault.Field(name, "A value of %s must have 1 to %d bytes.", name, maxName)
		}
	}
	return all, nil
}

// A page's name holds where it begins and where all pages end, so that an end
// that was not given does not move while pages are turned.
func usagePageName(from, end time.Time) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(from.Unix()))
	return "page_" + base64.URLEncoding.EncodeToString(binary.BigEndian.AppendUint64(b, uint64(end.Unix())))
}

func parseUsagePage(name string) (from, end time.Time, ok bool) {
	if len(name) < len("page_") || name[:len("page_")] != "page_" {
		return from, end, false
	}
	b, err := base64.URLEncoding.DecodeString(name[len("page_"):])
	if err != nil || len(b) != 16 {
		return from, end, false
	}
	f, e := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	if f > maxUnix || e > maxUnix {
		return from, end, false
	}
	return time.Unix(int64(f), 0).UTC(), time.Unix(int64(e), 0).UTC(), true
}

// usage answers with one page. to makes a result of the sums that are one group;
// group names it, for sums that the ledger tells apart and the API does not.
func (g *Gateway) usage(r *request, q usageAsk, group func(*ledger.UsageSum) string, to func(*ledger.UsageSum) any) (any, error) {
	sums, until, err := g.Registry.Usage(r.ctx, r.scope, q.UsageQuery)
	if err != nil {
		return nil, err
	}
	if !until.After(q.From) && q.From.Before(q.Until) {
		return nil, fault.Field("group_by", "One bucket has more than %d groups: ask for smaller ones, or for fewer projects, keys or users.", maxUsageRows)
	}
	page := usagePage{Object: "page", Data: []usageBucket{}}
	for at := q.From; at.Before(until); at = at.Add(q.Bucket) {
		b := usageBucket{"bucket", at.Unix(), at.Add(q.Bucket).Unix(), []any{}}
		n := 0
		for n < len(sums) && sums[n].At.Equal(at) {
			n++
		}
		for _, u := range merged(sums[:n], group) {
			b.Results = append(b.Results, to(u))
		}
		sums = sums[n:]
		page.Data = append(page.Data, b)
	}
	if until.Before(q.end) {
		next := usagePageName(until, q.end)
		page.HasMore, page.NextPage = true, &next
	}
	return page, nil
}

// merged adds up the sums of each group, in the order of their first.
func merged(sums []ledger.UsageSum, group func(*ledger.UsageSum) string) (all []*ledger.UsageSum) {
	at := map[string]*ledger.UsageSum{}
	for i := range sums {
		name := group(&sums[i])
		if of := at[name]; of != nil {
			of.Add(&sums[i])
			continue
		}
		at[name] = &sums[i]
		all = append(all, &sums[i])
	}
	return all
}

// usageResult is OpenAI's result of a bucket. What it is not grouped by is null.
type usageResult struct {
	Object string `json:"object"`
	Input  int64  `json:"input_tokens"`
	*completionsResult
	Requests int64   `json:"num_model_requests"`
	Project  *string `json:"project_id"`
	User     *string `json:"user_id"`
	Key      *string `json:"api_key_id"`
	Model    *string `json:"model"`
	*completionsGroup
}

// completionsResult is what only completions have. Cached and written input is
// told as it was billed; which of it was audio or images is not known.
type completionsResult struct {
	CachedInput   int64 `json:"input_cached_tokens"`
	CacheWrite    int64 `json:"input_cache_write_tokens"`
	UncachedInput int64 `json:"input_uncached_tokens"`
	Output        int64 `json:"output_tokens"`
	TextInput     int64 `json:"input_text_tokens"`
	TextOutput    int64 `json:"output_text_tokens"`
	AudioInput    int64 `json:"input_audio_tokens"`
	AudioOutput   int64 `json:"output_audio_tokens"`
	ImageInput    int64 `json:"input_image_tokens"`
	ImageOutput   int64 `json:"output_image_tokens"`
}

type completionsGroup struct {
	Batch     *bool   `json:"batch"`
	Tier      *string `json:"service_tier"`
	APISource *string `json:"api_source"`
}

// defaultTier is how OpenAI calls the standard service tier.
const defaultTier = "default"

// getUsage answers for one of OpenAI's kinds of usage.
func (g *Gateway) getUsage(r *request, of string) (any, error) {
	groups := []string{"project_id", "user_id", "api_key_id", "model"}
	if of == "completions" {
		groups = append(groups, "batch", "service_tier", "api_source")
	}
	q, err := g.parseUsage(r, usageWidths, groups...)
	if err != nil {
		return nil, err
	}
	q.Kinds = usageKinds[of]
	if q.Users, err = r.list("user_ids"); err != nil {
		return nil, err
	}
	for i, name := range q.Users { // an end user may be named, or given by id
		if !tenant.IsUserID(name) {
			q.Users[i] = tenant.UserID(r.scope, name)
		}
	}
	if q.Models, err = r.list("models"); err != nil {
		return nil, err
	}
	switch batch := r.query("batch"); {
	case batch == "":
	case of != "completions":
		return nil, fault.Field("batch", "Only completions can be asked for by batch.")
	case batch == "true":
		q.Batch = ledger.OnlyBatch
	case batch == "false":
		q.Batch = ledger.NoBatch
	default:
		return nil, fault.Field("batch", "batch must be true or false.")
	}
	group := func(u *ledger.UsageSum) string { return q.name(u, of == "completions") }
	return g.usage(r, q, group, func(u *ledger.UsageSum) any { return q.result(u, of) })
}

// by reports whether the request is grouped by a field, and returns its value.
func (q *usageAsk) by(field, value string) *string {
	if !slices.Contains(q.groups, field) {
		return nil
	}
	return &value
}

// name tells groups apart as the results do.
func (q *usageAsk) name(u *ledger.UsageSum, completions bool) string {
	id := []any{u.ProjectID, u.UserID, u.KeyID, u.Provider, u.Model}
	if completions {
		id = append(id, q.by("service_tier", u.Tier), q.by("batch", strconv.FormatBool(u.Tier == ledger.BatchTier)))
	}
	b, err := json.Marshal(id)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return string(b)
}

func (q *usageAsk) result(u *ledger.UsageSum, of string) any {
	o := usageResult{Object: "organization.usage." + of + ".result", Input: u.Input, Requests: u.Attempts,
		Project: q.by("project_id", u.ProjectID), User: q.by("user_id", u.UserID), Key: q.by("api_key_id", u.KeyID), Model: q.by("model", u.ModelName())}
	if of != "completions" {
		return o
	}
	plain := max(u.Input-u.CachedInput-u.CacheWrite, 0)
	o.completionsResult = &completionsResult{
		CachedInput: u.CachedInput, CacheWrite: u.CacheWrite, UncachedInput: plain, Output: u.Output,
		TextInput: max(plain-u.AudioInput-u.ImageInput, 0), TextOutput: max(u.Output-u.AudioOutput-u.ImageOutput, 0),
		AudioInput: u.AudioInput, AudioOutput: u.AudioOutput, ImageInput: u.ImageInput, ImageOutput: u.ImageOutput,
	}
	tier := u.Tier
	if tier == "" {
		tier = defaultTier
	}
	o.completionsGroup = &completionsGroup{Tier: q.by("service_tier", tier), APISource: q.by("api_source", "unlabeled")}
	if slices.Contains(q.groups, "batch") {
		batch := u.Tier == ledger.BatchTier
		o.Batch = &batch
	}
	return o
}

func (g *Gateway) getUsageOfCompletions(r *request) (any, error) { return g.getUsage(r, "completions") }
func (g *Gateway) getUsageOfEmbeddings(r *request) (any, error)  { return g.getUsage(r, "embeddings") }
func (g *Gateway) getUsageOfModerations(r *request) (any, error) { return g.getUsage(r, "moderations") }
