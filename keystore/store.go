package keystore

import (
	"context"
	"errors"
	"time"

	"bulkhead/tenant"
)

// ErrNotFound is what a Store returns for what is not there or is another
// company's: the two cannot be told apart.
var ErrNotFound = errors.New("not found")

// ErrConflict is what a Store returns when another writer was first.
var ErrConflict = errors.New("changed by another writer")

// Sealed is a credential as it is stored: who and what in the clear, the
// record itself (secret, host, headers) only as ciphertext.
type Sealed struct {
	ID        string // "cred_" and a random part
	Provider  string // unique within the company
	Version   int64  // 1 for the first; each change is the next number
	Redacted  string // what may be shown of the secret: its last four characters
	BaseURL   string // the company's own address, "" for the provider's; shown, not used: the sealed one counts
	Blob      []byte
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Store keeps sealed credentials and wrapped data keys.
type Store interface {
	// DataKey returns the company's wrapped data key, or ErrNotFound.
	DataKey(ctx context.Context, s tenant.Scope) ([]byte, error)
	// PutDataKey stores the company's wrapped data key unless it has one, and
	// returns the one that is stored then.
	PutDataKey(ctx context.Context, s tenant.Scope, wrapped []byte) ([]byte, error)

	// Credential returns the credential for a provider, or ErrNotFound.
	Credential(ctx context.Context, s tenant.Scope, provider string) (Sealed, error)
	// Credentials returns all of the company's, without Blob, by creation.
	Credentials(ctx context.Context, s tenant.Scope) ([]Sealed, error)
	// PutCredential stores c as the first version, or in place of the version
	// before c.Version. It returns ErrConflict if that is not the one stored.
	PutCredential(ctx context.Context, s tenant.Scope, c Sealed) error
	// DeleteCredential removes one by id. It returns ErrNotFound.
	DeleteCredential(ctx context.Context, s tenant.Scope, id string) error
}
