package keystore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// Transit seals the master key with a key that never leaves Vault, of its engine
// transit. What is sealed so begins with "vault:v" and the version of that key.
// It is asked at a start, and never by a call.
type Transit struct {
	vault      VaultOptions
	mount, key string
	transport  http.RoundTripper
}

// transitName is what a name of a key, or a part of a path, may be.
var transitName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// transitPause lies between two tries while Vault is away or sealed.
const transitPause = 500 * time.Millisecond

// NewTransit returns the key of that name, of the engine at mount. Of o only who
// asks and where counts.
func NewTransit(o VaultOptions, mount, key string) (*Transit, error) {
	switch {
	case !vaultPath.MatchString(mount):
		return nil, fmt.Errorf("vault: the transit mount %q is not a path of [A-Za-z0-9._-] parts", mount)
	case !transitName.MatchString(key):
		return nil, fmt.Errorf("vault: the transit key %q is not 1 to 64 of [A-Za-z0-9._-]", key)
	}
	transport, err := newTransport(o.CAFile)
	if err != nil {
		return nil, err
	}
	t := &Transit{vault: o, mount: mount, key: key, transport: transport}
	_, err = newClient(o, transport, nil) // which looks at the address
	return t, err
}

// Seal returns key, sealed with the newest version of the key in Vault.
func (t *Transit) Seal(ctx context.Context, key []byte) (sealed string, err error) {
	return t.ask(ctx, "encrypt", "ciphertext", map[string]any{"plaintext": base64.StdEncoding.EncodeToString(key)})
}

// Reseal returns what is sealed in sealed, sealed with the newest version.
func (t *Transit) Reseal(ctx context.Context, sealed string) (string, error) {
	return t.ask(ctx, "rewrap", "ciphertext", map[string]any{"ciphertext": sealed})
}

// Open returns what Seal was given.
func (t *Transit) Open(ctx context.Context, sealed string) (key []byte, err error) {
	text, err := t.ask(ctx, "decrypt", "plaintext", map[string]any{"ciphertext": sealed})
	if err != nil {
		return nil, err
	}
	if key, err = base64.StdEncoding.DecodeString(text); err != nil {
		return nil, errNotUnderstood
	}
	return key, nil
}

// ask has a text made by one of the engine's operations. While Vault is away or
// sealed it goes on trying, until ctx ends: gateways and Vault may be started
// together.
func (t *Transit) ask(ctx context.Context, operation, field string, body map[string]any) (text string, err error) {
	for {
		text, err = t.once(ctx, operation, field, body)
		if status := statusOf(err); err == nil || status != 0 && status < http.StatusInternalServerError || errors.Is(err, errNotUnderstood) {
			break
		}
		select {
		case <-time.After(transitPause):
			continue
		case <-ctx.Done():
		}
		break
	}
	if err != nil {
		return "", fmt.Errorf("cannot %s the master key with %q at %q: %w", operation, t.key, t.mount, err)
	}
	return text, nil
}

func (t *Transit) once(ctx context.Context, operation, field string, body map[string]any) (string, error) {
	client, err := newClient(t.vault, t.transport, nil)
	if err != nil {
		return "", err
	}
	if t.vault.RoleID == "" {
		client.SetToken(t.vault.Token.Reveal())
	} else {
		got, err := client.Logical().WriteWithContext(ctx, "auth/approle/login", map[string]any{"role_id": t.vault.RoleID, "secret_id": t.vault.SecretID.Reveal()})
		if err != nil {
			return "", fmt.Errorf("cannot log in by AppRole: %w", plain(err))
		}
		if got == nil || got.Auth == nil || got.Auth.ClientToken == "" {
			return "", fmt.Errorf("cannot log in by AppRole: %w", errNotUnderstood)
		}
		client.SetToken(got.Auth.ClientToken)
		// It has served once this is answered. Where it may not end itself it ends
		// with its time.
		defer func() { _ = client.Auth().Token().RevokeSelfWithContext(ctx, "") }()
	}
	got, err := client.Logical().WriteWithContext(ctx, t.mount+"/"+operation+"/"+t.key, body)
	if err != nil {
		return "", plain(err)
	}
	return textOf(got, field)
}

// textOf returns a field of an answer.
func textOf(s *api.Secret, field string) (string, error) {
	if s == nil {
		return "", errNotUnderstood
	}
	text, _ := s.Data[field].(string)
	if text == "" {
		return "", errNotUnderstood
	}
	return text, nil
}

// isSealedMaster reports whether text is a master key that Transit sealed.
func isSealedMaster(text string) bool { return strings.HasPrefix(text, "vault:v") }
