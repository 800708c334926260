package rag

import (
	"context"

	"bulkhead/tenant"
	"bulkhead/vector"
)

// VectorIndex is the Index of ingestion over one of package vector.
type VectorIndex struct{ vector.Index }

// Upsert implements Index.
func (x VectorIndex) Upsert(ctx context.Context, s tenant.Scope, chunks []Chunk) error {
	bySpace := map[vector.Space][]vector.Item{} // one, but for chunks of several embedders
	for i := range chunks {
		c := &chunks[i]
		sp := vector.Space{Embedder: c.EmbedderID, Dim: len(c.Vector)}
		bySpace[sp] = append(bySpace[sp], vector.Item{Ref: vector.Ref{Store: c.StoreID, File: c.FileID, Chunk: c.Index}, Vector: c.Vector})
	}
	for sp, items := range bySpace {
		if err := x.Put(ctx, s, sp, items); err != nil {
			return err
		}
	}
	return nil
}

// VectorSource is the vector.Source of an index in process over what the Library
// keeps.
type VectorSource struct{ Library }

// Files implements vector.Source.
func (l VectorSource) Files(ctx context.Context, s tenant.Scope, store string) ([]vector.File, error) {
	files, err := contents(ctx, l.Library, s, store)
	all := make([]vector.File, len(files))
	for i, f := range files {
		all[i] = vector.File{ID: f.FileID, Version: f.Version}
	}
	return all, err
}

// Vectors implements vector.Source.
func (l VectorSource) Vectors(ctx context.Context, s tenant.Scope, store, file string, fn func(chunk int, embedder string, v []float32) error) error {
	return eachChunk(ctx, l.Library, s, store, file, func(c *Chunk) error {
		if c.Vector == nil {
			return nil // of another embedder than the store's
		}
		return fn(c.Index, c.EmbedderID, c.Vector)
	})
}
