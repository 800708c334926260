package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"bulkhead/blob"
	"bulkhead/config"
	"bulkhead/ledger"
	"bulkhead/provider"
	"bulkhead/rag"
	"bulkhead/tenant"
	"bulkhead/vector"
	"bulkhead/web"
)

// openKnowledge opens what files and vector stores need. Servers that are away do
// not keep the gateway from starting.
func (h *house) openKnowledge(cfg *config.Config) (*web.Knowledge, []web.Backend, error) {
	blobs, asked, err := h.openBlobs(cfg)
	if err != nil {
		return nil, nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot find this program, which reads files as a process of its own: %w", err)
	}
	index, searched := h.openIndex(cfg)
	h.closers = append(h.closers, index.Close)
	embedder := embedder{h}
	extract := rag.Extractor{Program: program, Memory: int64(cfg.Knowledge.ParseMemory), Time: cfg.Knowledge.ParseTime}
	ingest := rag.NewIngester(rag.IngestOptions{
		Jobs: h.db, Blobs: blobs, Index: rag.VectorIndex{Index: index}, Embedder: embedder, Extract: extract.Extract, Tokens: provider.EstimateTokens,
		Total: cfg.Knowledge.Ingest, PerCompany: cfg.Knowledge.CompanyIngest,
		Failed: func(company string, err error) {
			h.log.Error("a file is not taken in; it is tried again", "company", company, "error", err.Error())
		},
	})
	h.closers = append(h.closers, ingest.Close)
	h.retriever = rag.NewRetriever(rag.RetrieveOptions{
		Library: h.db, Segments: h.db, Index: index, Embedder: embedder, Tracked: h.db.FileTracked, Deadline: cfg.Knowledge.Deadline,
		Violation: func() { h.gateway.ForeignVector() },
	})
	return &web.Knowledge{Files: h.db, Library: h.db, Blobs: blobs, Index: rag.VectorIndex{Index: index}, Search: h.retriever, Ingest: ingest},
		append(asked, searched...), nil
}

// openIndex returns where vectors are searched: Milvus, or this process. A Milvus
// that is away keeps the gateway from nothing but answers of agents that must know.
func (h *house) openIndex(cfg *config.Config) (vector.Index, []web.Backend) {
	if cfg.MilvusAddr == "" {
		return vector.NewLocal(rag.VectorSource{Library: h.db}, vector.LocalOptions{
			Bytes: int64(cfg.Knowledge.VectorBytes), CompanyBytes: int64(cfg.Knowledge.CompanyVectorBytes),
		}), nil
	}
	m := openMilvus(cfg, func() { h.gateway.ForeignVector() })
	return m, []web.Backend{{Name: "milvus", Ask: m.Check, Grace: backendGrace}}
}

func openMilvus(cfg *config.Config, violation func()) *vector.Milvus {
	return vector.OpenMilvus(vector.MilvusOptions{Addr: cfg.MilvusAddr, User: cfg.MilvusUser, Password: cfg.MilvusPassword.Reveal(), Violation: violation})
}

// embedder is the gateway's, which is made after those who embed.
type embedder struct{ h *house }

func (e embedder) ID(s tenant.Scope) string { return e.h.gateway.Embedder().ID(s) }

func (e embedder) Embed(ctx context.Context, s tenant.Scope, texts []string) ([][]float32, string, error) {
	return e.h.gateway.Embedder().Embed(ctx, s, texts)
}

// embeddingsService returns the operator's service for embeddings, nil if there is
// none.
func embeddingsService(cfg *config.Config) (*web.EmbeddingsService, error) {
	e := cfg.Embeddings
	if e.BaseURL == "" {
		return nil, nil
	}
	vendors, problems := provider.Vendors(map[string]provider.Override{web.Embeddings: {Kind: "custom", BaseURL: e.BaseURL}}, true)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return &web.EmbeddingsService{Vendor: vendors[web.Embeddings], Model: e.Model, Secret: provider.NewSecret(e.APIKey.Reveal())}, nil
}

// withEmbeddings adds what the operator's service costs companies to the prices.
func withEmbeddings(cfg *config.Config, prices *ledger.Prices) (*ledger.Prices, error) {
	if cfg.Embeddings.BaseURL == "" {
		return prices, nil
	}
	n := cfg.Embeddings.Price
	price := fmt.Sprintf("%d.%06d", n/1_000_000, n%1_000_000)
	over, err := ledger.Overrides("embeddings", []ledger.PriceRow{{Provider: web.Embeddings, Model: cfg.Embeddings.Model, PerMillion: map[string]string{"input": price, "output": "0"}}})
	if err != nil {
		return nil, err
	}
	return prices.With(over), nil
}

// milvus asks for its version.
func (c checker) milvus(ctx context.Context) []finding {
	m := openMilvus(c.cfg, func() {})
	defer m.Close()
	version, err := m.Version(ctx)
	if err != nil {
		return one(failed, "%s", err)
	}
	return []finding{{State: good, Version: version, Detail: "it answers"}}
}

// openBlobs opens where the bytes of files are.
func (h *house) openBlobs(cfg *config.Config) (blob.Store, []web.Backend, error) {
	if cfg.S3URL == "" {
		f, err := blob.OpenFolder(filepath.Join(cfg.Data, "files"))
		if err != nil {
			return nil, nil, err
		}
		h.closers = append(h.closers, f.Close)
		return f, nil, nil
	}
	b, err := openS3(cfg)
	if err != nil {
		return nil, nil, err
	}
	return b, []web.Backend{{Name: "s3", Ask: b.Check, Grace: backendGrace}}, nil
}

func openS3(cfg *config.Config) (*blob.S3, error) {
	return blob.OpenS3(blob.S3Options{URL: cfg.S3URL, Region: cfg.S3Region, AccessKey: cfg.S3AccessKey, SecretKey: cfg.S3SecretKey.Reveal()})
}

func knowledgeSettings(cfg *config.Config) web.KnowledgeSettings {
	k := cfg.Knowledge
	return web.KnowledgeSettings{
		FileBytes:      int64(k.FileBytes),
		Quota:          rag.Quota{Files: k.CompanyFiles, Bytes: int64(k.CompanyBytes), Stores: k.CompanyStores, StoreFiles: k.StoreFiles},
		TransfersTotal: k.Transfers, TransfersCompany: k.CompanyTransfers, Redirect: cfg.S3Redirect,
	}
}

// s3 asks for the bucket.
func (c checker) s3(ctx context.Context) []finding {
	b, err := openS3(c.cfg)
	if err == nil {
		err = b.Check(ctx)
	}
	if err != nil {
		return one(failed, "%s", err)
	}
	switch versioned, err := b.Versioned(ctx); {
	case err != nil:
		return one(warning, "%s", err)
	case versioned:
		return one(failed, "the bucket keeps versions of what is deleted: a company's files would not go when it is erased")
	}
	return one(good, "the bucket is there")
}
