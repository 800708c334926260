package keystore

import (
	"context"
	"fmt"

	"bulkhead/tenant"
)

// forContent begins the purposes of what Seal seals: none is that of a credential
// or of a data key.
const forContent = "content: "

func contentAAD(s tenant.Scope, kind, id string) []byte {
	return s.Name(forContent+kind, id).Append(nil)
}

// Seal seals content of the company with its data key, which it gets if it has
// none. It opens as that of the same company, kind and id only.
func (k *Keystore) Seal(ctx context.Context, s tenant.Scope, kind, id string, content []byte) ([]byte, error) {
	key, err := k.dataKey(ctx, s, true)
	if err != nil {
		return nil, err
	}
	return key.Seal(nil, nil, content, contentAAD(s, kind, id)), nil
}

// Open is the inverse of Seal.
func (k *Keystore) Open(ctx context.Context, s tenant.Scope, kind, id string, sealed []byte) ([]byte, error) {
	key, err := k.dataKey(ctx, s, false)
	if err != nil {
		return nil, err
	}
	content, err := key.Open(nil, nil, sealed, contentAAD(s, kind, id))
	if err != nil {
		return nil, fmt.Errorf("cannot open content of %s: %w", s.ID(), ErrSealed)
	}
	return content, nil
}
