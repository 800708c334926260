package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"bulkhead/config"
	"bulkhead/keystore"
	"bulkhead/provider"
	"bulkhead/web"
)

// firstRun makes what a fresh data folder lacks: the operator's key and, while
// only this machine can connect, a demo company. A second start changes
// nothing.
func (h *house) firstRun(ctx context.Context, cfg *config.Config, addr string, out io.Writer) error {
	has, err := h.db.HasOperatorKey(ctx)
	if err != nil || has {
		return err
	}
	if cfg.MakesDemo() {
		if err := h.demo(ctx, filepath.Join(cfg.Data, "demo.json"), addr, out); err != nil {
			return fmt.Errorf("cannot make the demo company: %w", err)
		}
	}
	return h.operatorKey(ctx, filepath.Join(cfg.Data, "operator.key"))
}

// demo makes the demo company and shows its keys.
func (h *house) demo(ctx context.Context, path, addr string, out io.Writer) error {
	demo, err := h.makeDemo(ctx)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(demo, "", "  ")
	if err != nil {
		return err
	}
	if err := writeSecret(path, append(text, '\n')); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, welcome, demo.Name, demo.APIKey, demo.TestKey, demo.AdminKey, path, addr, demo.TestKey)
	return err
}

const welcome = `
The company %q was made to play with. Its keys, shown once:

  live key   %s
  test key   %s   (reaches only the built-in sandbox)
  admin key  %s
  (also in %s)

Try it; this works offline:

  curl http://%s/v1/chat/completions \
    -H "Authorization: Bearer %s" \
    -H "Content-Type: application/json" \
    -d '{"model":"sandbox/echo","messages":[{"role":"user","content":"Hello, Bulkhead"}]}'

`

// operatorKey makes the operator's key. With it the first run is over.
func (h *house) operatorKey(ctx context.Context, path string) error {
	value, k := h.gateway.Tenants.Minter().MintOperator()
	k.Name = "first operator key"
	if err := writeSecret(path, []byte(value+"\n")); err != nil {
		return err
	}
	return h.db.AddOperatorKey(ctx, k)
}

// makeDemo makes the demo company. Provider keys that the environment holds
// become its credentials.
func (h *house) makeDemo(ctx context.Context) (demo web.CreatedCompany, err error) {
	directory := h.gateway.Tenants
	act, err := directory.Gateway().Begin(ctx, "company.create", "")
	if err != nil {
		return demo, err
	}
	if demo, err = h.gateway.ProvisionCompany(ctx, act, "Demo", ""); err != nil {
		return demo, err
	}
	s, err := directory.Authenticate(ctx, []byte(demo.AdminKey))
	if err != nil {
		return demo, err
	}
	for _, name := range []string{"openai", "anthropic", "gemini"} {
		secret := strings.TrimSpace(os.Getenv(provider.Builtin()[name].EnvKey))
		if secret == "" {
			continue
		}
		if _, err := h.gateway.Keys.Put(ctx, s, keystore.NewCredential{Provider: name, Secret: provider.NewSecret(secret)}); err != nil {
			return demo, fmt.Errorf("the key of %s in the environment: %w", name, err)
		}
	}
	return demo, nil
}

// writeSecret writes a file that only its owner may read, all of it or none.
func writeSecret(path string, text []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return os.Rename(tmp, path)
}
