package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// object is an answer of the gateway. Numbers keep their text.
type object = map[string]any

// client speaks to a running gateway as any other program would.
type client struct {
	http  http.Client
	flags *flag.FlagSet
	json  *bool
	out   io.Writer
}

func env(name, def string) string { return cmp.Or(os.Getenv(name), def) }

func dataFile(name string) string { return filepath.Join(env("BULKHEAD_DATA", "./data"), name) }

// command runs one of the commands that speak to a gateway.
func command(ctx context.Context, name string, args []string) error {
	c := &client{http: http.Client{Timeout: time.Minute}, out: os.Stdout}
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	c.flags = flag.NewFlagSet("gateway "+name+" "+verb, flag.ContinueOnError)
	c.json = c.flags.Bool("json", false, "print one JSON object")
	run, ok := map[string]func(context.Context, []string) error{
		"company create": c.companyCreate, "company list": c.companyList,
		"company suspend": c.companyDo("suspend"), "company resume": c.companyDo("resume"), "company erase": c.companyDo("erase"),
		"key create": c.keyCreate, "key revoke": c.keyRevoke, "credential set": c.credentialSet,
		"ledger export": c.ledgerExport,
	}[name+" "+verb]
	if !ok {
		return fmt.Errorf("unknown command %q; run gateway help", strings.TrimSpace(name+" "+verb))
	}
	return run(ctx, args)
}

// parse reads flags wherever they stand among the arguments, which must be as
// many as names.
func (c *client) parse(args []string, names ...string) ([]string, error) {
	var plain []string
	for len(args) > 0 {
		if err := c.flags.Parse(args); err != nil {
			return nil, err
		}
		args = c.flags.Args()
		if len(args) > 0 {
			plain, args = append(plain, args[0]), args[1:]
		}
	}
	if len(plain) != len(names) {
		return nil, fmt.Errorf("%s takes %d arguments: %s", c.flags.Name(), len(names), strings.Join(names, " "))
	}
	return plain, nil
}

// do sends one request and returns the answer.
func (c *client) do(ctx context.Context, method, base, path, key string, body any) (object, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(base, "/")+path, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the gateway: %w", err)
	}
	defer resp.Body.Close()
	var out object
	d := json.NewDecoder(io.LimitReader(resp.Body, 16<<20))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("the answer (%s) is not from a gateway", resp.Status)
	}
	if resp.StatusCode != http.StatusOK {
		e := &refused{resp.StatusCode, resp.Status}
		if o, ok := out["error"].(object); ok {
			e.text += fmt.Sprintf(": %v", o["message"])
		}
		return nil, e
	}
	return out, nil
}

// refused is an answer of the gateway that is an error.
type refused struct {
	status int
	text   string
}

func (r *refused) Error() string { return r.text }

// missing reports whether err says that there is no such thing.
func missing(err error) bool {
	r, ok := errors.AsType[*refused](err)
	return ok && r.status == http.StatusNotFound
}

// operator sends a request to the operator's address.
func (c *client) operator(ctx context.Context, method, path string, body any) (object, error) {
	key := os.Getenv("BULKHEAD_OPERATOR_KEY")
	if key == "" {
		b, err := os.ReadFile(dataFile("operator.key"))
		if err != nil {
			return nil, fmt.Errorf("BULKHEAD_OPERATOR_KEY is not set, and %w", err)
		}
		key = strings.TrimSpace(string(b))
	}
	return c.do(ctx, method, env("BULKHEAD_ADMIN_URL", "http://127.0.0.1:8081"), path, key, body)
}

// adminKey returns the company's admin key.
func (c *client) adminKey() (string, error) {
	if key := os.Getenv("BULKHEAD_API_KEY"); key != "" {
		return key, nil
	}
	b, err := os.ReadFile(dataFile("demo.json"))
	if err != nil {
		return "", fmt.Errorf("BULKHEAD_API_KEY is not set to a company's admin key, and %w", err)
	}
	var demo struct {
		AdminKey string `json:"admin_key"`
	}
	if err := json.Unmarshal(b, &demo); err != nil {
		return "", fmt.Errorf("cannot read demo.json: %w", err)
	}
	return demo.AdminKey, nil
}

// admin sends a request as a company's admin.
func (c *client) admin(ctx context.Context, method, path string, body any) (object, error) {
	key, err := c.adminKey()
	if err != nil {
		return nil, err
	}
	return c.do(ctx, method, env("BULKHEAD_URL", "http://127.0.0.1:8080"), "/v1/organization"+path, key, body)
}

// print shows an answer: as JSON, or these fields of it.
func (c *client) print(o object, fields ...string) error {
	if *c.json {
		b, err := json.MarshalIndent(o, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.out, string(b))
		return err
	}
	for _, f := range fields {
		if v, ok := o[f]; ok && v != nil {
			if _, err := fmt.Fprintf(c.out, "%-15s %v\n", f, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *client) companyCreate(ctx context.Context, args []string) error {
	owner := c.flags.String("owner", "", "the email of the first owner: the answer has the token of their invite")
	a, err := c.parse(args, "NAME")
	if err != nil {
		return err
	}
	body := object{"name": a[0]}
	if *owner != "" {
		body["owner"] = *owner
	}
	o, err := c.operator(ctx, http.MethodPost, "/admin/companies", body)
	if err != nil {
		return err
	}
	if invited, ok := o["owner"].(object); ok && !*c.json {
		o["invite_token"], o["accept_path"] = invited["token"], invited["accept_path"]
	}
	return c.print(o, "id", "name", "admin_key", "project_id", "api_key", "test_key", "invite_token", "accept_path")
}

func (c *client) companyList(ctx context.Context, args []string) error {
	if _, err := c.parse(args); err != nil {
		return err
	}
	data, err := c.all(ctx, c.operator, "/admin/companies?order=asc&limit=100")
	if err != nil {
		return err
	}
	if *c.json {
		return c.print(object{"data": data})
	}
	for _, o := range data {
		if _, err := fmt.Fprintf(c.out, "%v  %-9v  %v\n", o["id"], o["status"], o["name"]); err != nil {
			return err
		}
	}
	return nil
}

// all follows a list to its end.
func (c *client) all(ctx context.Context, ask func(context.Context, string, string, any) (object, error), path string) (all []object, err error) {
	next := path
	for {
		o, err := ask(ctx, http.MethodGet, next, nil)
		if err != nil {
			return nil, err
		}
		data, _ := o["data"].([]any)
		for _, d := range data {
			if row, ok := d.(object); ok {
				all = append(all, row)
			}
		}
		last, _ := o["last_id"].(string)
		if more, _ := o["has_more"].(bool); !more || last == "" {
			return all, nil
		}
		next = path + "&after=" + url.QueryEscape(last)
	}
}

func (c *client) companyDo(verb string) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		a, err := c.parse(args, "ID")
		if err != nil {
			return err
		}
		o, err := c.operator(ctx, http.MethodPost, "/admin/companies/"+url.PathEscape(a[0])+"/"+verb, object{})
		if err != nil {
			return err
		}
		return c.print(o, "id", "name", "status", "rows_removed")
	}
}

// projects returns the ids of the company's projects.
func (c *client) projects(ctx context.Context) (ids []string, err error) {
	rows, err := c.all(ctx, c.admin, "/projects?order=asc&limit=100")
	for _, o := range rows {
		if id, ok := o["id"].(string); ok {
			ids = append(ids, id)
		}
	}
	return ids, err
}

func (c *client) keyCreate(ctx context.Context, args []string) error {
	project := c.flags.String("project", "", "the project's id (default: the company's only project)")
	name := c.flags.String("name", "made by the command line", "what the key is called")
	kind := c.flags.String("kind", "live", "live, test or admin")
	expires := c.flags.Int64("expires", 0, "seconds until the key expires (default: never)")
	scopes := c.flags.String("scopes", "", "what the key may be used for, with commas between (default: everything a key of its kind may)")
	if _, err := c.parse(args); err != nil {
		return err
	}
	body := object{"name": *name}
	if *scopes != "" {
		body["scopes"] = strings.Split(*scopes, ",")
	}
	if *expires != 0 {
		body["expires_in_seconds"] = *expires
	}
	if *kind == "admin" {
		o, err := c.admin(ctx, http.MethodPost, "/admin_api_keys", body)
		if err != nil {
			return err
		}
		return c.print(o, "id", "name", "value", "expires_at")
	}
	if *project == "" {
		ids, err := c.projects(ctx)
		if err != nil {
			return err
		}
		if len(ids) != 1 {
			return fmt.Errorf("the company has %d projects; choose one with -project", len(ids))
		}
		*project = ids[0]
	}
	body["kind"] = *kind
	o, err := c.admin(ctx, http.MethodPost, "/projects/"+url.PathEscape(*project)+"/service_accounts", body)
	if err != nil {
		return err
	}
	key, _ := o["api_key"].(object)
	return c.print(key, "id", "name", "value", "expires_at")
}

// keyRevoke revokes a key by its id, wherever in the company it is.
func (c *client) keyRevoke(ctx context.Context, args []string) error {
	a, err := c.parse(args, "KEY_ID")
	if err != nil {
		return err
	}
	id := url.PathEscape(a[0])
	paths := []string{"/admin_api_keys/" + id}
	ids, err := c.projects(ctx)
	if err != nil {
		return err
	}
	for _, p := range ids {
		paths = append(paths, "/projects/"+url.PathEscape(p)+"/api_keys/"+id)
	}
	slices.Reverse(paths) // an admin key is the rarest
	for _, p := range paths {
		var o object
		if o, err = c.admin(ctx, http.MethodDelete, p, nil); err == nil {
			return c.print(o, "id", "deleted")
		}
		if !missing(err) {
			return err
		}
	}
	return err
}

// maxSecret bounds what is read from standard input, in bytes.
const maxSecret = 64 << 10

func (c *client) credentialSet(ctx context.Context, args []string) error {
	base := c.flags.String("base-url", "", "the provider's address, if it is not the vendor's")
	resource := c.flags.String("resource", "", "the name of the resource (Azure)")
	keyless := c.flags.Bool("keyless", false, "the provider takes no key: nothing is read")
	lent := c.flags.Bool("lent", false, "the operator lends it to companies: needs an operator key")
	all := c.flags.Bool("all-companies", false, "with -lent: every company may use it")
	a, err := c.parse(args, "PROVIDER")
	if err != nil {
		return err
	}
	if *all && !*lent {
		return errors.New("-all-companies is for a credential that is -lent")
	}
	body := object{"provider": a[0]}
	if !*keyless {
		secret, err := io.ReadAll(io.LimitReader(os.Stdin, maxSecret))
		if err != nil {
			return fmt.Errorf("cannot read the secret from standard input: %w", err)
		}
		body["secret"] = strings.TrimSpace(string(secret))
	}
	if *base != "" {
		body["base_url"] = *base
	}
	if *resource != "" {
		body["resource"] = *resource
	}
	var o object
	if *lent {
		body["all_companies"] = *all
		o, err = c.operator(ctx, http.MethodPost, "/admin/credentials", body)
	} else {
		o, err = c.admin(ctx, http.MethodPost, "/credentials", body)
	}
	if err != nil {
		return err
	}
	return c.print(o, "id", "provider", "version", "redacted_value", "base_url")
}
