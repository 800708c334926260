package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"
)

// ledgerExport writes a company's ledger to a file or to standard output. What is
// cut off on the way is an error, and a file is only there when it is whole.
func (c *client) ledgerExport(ctx context.Context, args []string) error {
	format := c.flags.String("format", "csv", "csv or jsonl")
	start := c.flags.String("start", "", "the first `day` (2026-11-01) or time (RFC 3339); default: the beginning")
	end := c.flags.String("end", "", "the `day` or time before which it ends; default: now")
	file := c.flags.String("out", "", "the `file` to write; default: standard output")
	if _, err := c.parse(args); err != nil {
		return err
	}
	if *c.json {
		*format = "jsonl"
	}
	query := url.Values{"format": {*format}}
	for name, text := range map[string]string{"start_time": *start, "end_time": *end} {
		if text == "" {
			continue
		}
		at, err := parseTime(text)
		if err != nil {
			return err
		}
		query.Set(name, strconv.FormatInt(at.Unix(), 10))
	}
	key, err := c.adminKey()
	if err != nil {
		return err
	}
	if *file == "" {
		return c.download(ctx, "/v1/organization/ledger/export?"+query.Encode(), key, c.out)
	}
	f, err := os.OpenFile(*file+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(c.download(ctx, "/v1/organization/ledger/export?"+query.Encode(), key, f), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), *file)
}

// parseTime reads a day or a time of RFC 3339. A day begins in UTC.
func parseTime(text string) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%q is neither a day (2026-11-01) nor a time (2026-11-01T12:00:00Z)", text)
	}
	return t, nil
}

// download copies the answer to a GET, however long that takes.
func (c *client) download(ctx context.Context, path, key string, to io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, env("BULKHEAD_URL", "http://127.0.0.1:8080")+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	forever := c.http
	forever.Timeout = 0
	resp, err := forever.Do(req)
	if err != nil {
		return fmt.Errorf("cannot reach the gateway: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var o struct {
			Error struct{ Message string } `json:"error"`
		}
		_ = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&o) // without it the status alone says it
		return &refused{resp.StatusCode, resp.Status + ": " + o.Error.Message}
	}
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fmt.Errorf("the export was cut off: %w", err)
	}
	return nil
}
