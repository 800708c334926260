package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"bulkhead/blob"
	"bulkhead/config"
	"bulkhead/provider"
	"bulkhead/rag"
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
	index := vector.NewLocal(rag.VectorSource{Library: h.db}, vector.LocalOptions{})
	h.closers = append(h.closers, index.Close)
	embedder := rag.Lexical{}
	extract := rag.Extractor{Program: program, Memory: int64(cfg.Knowledge.ParseMemory), Time: cfg.Knowledge.ParseTime}
	ingest := rag.NewIngester(rag.IngestOptions{
		Jobs: h.db, Blobs: blobs, Index: rag.VectorIndex{Index: index}, Embedder: embedder, Extract: extract.Extract, Tokens: provider.EstimateTokens,
		Total: cfg.Knowledge.Ingest, PerCompany: cfg.Knowledge.CompanyIngest,
		Failed: func(company string, err error) {
			h.log.Error("a file is not taken in; it is tried again", "company", company, "error", err.Error())
		},
	})
	h.closers = append(h.closers, ingest.Close)
	search := rag.NewRetriever(rag.RetrieveOptions{Library: h.db, Segments: h.db, Index: index, Embedder: embedder, Tracked: h.db.FileTracked})
	return &web.Knowledge{Files: h.db, Library: h.db, Blobs: blobs, Index: rag.VectorIndex{Index: index}, Search: search, Ingest: ingest}, asked, nil
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
