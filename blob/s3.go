package blob

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"bulkhead/tenant"
)

// S3Options say which bucket blobs are in.
type S3Options struct {
	// URL is http or https://HOST[:PORT]/BUCKET[/PREFIX].
	URL       string
	Region    string
	AccessKey string
	SecretKey string
}

// S3 keeps blobs in a bucket of any server that speaks S3.
type S3 struct {
	client *minio.Client
	bucket string
	prefix string // "" or with a slash at its end
}

// partSize is how much of a blob is held in memory while it is put: the least that
// S3 takes. A blob has at most 10,000 parts.
const partSize = 5 << 20

// OpenS3 returns blobs in a bucket, which it does not ask for: see Check.
func OpenS3(o S3Options) (*S3, error) {
	u, bucket, prefix, err := splitS3(o.URL)
	if err != nil {
		return nil, err
	}
	client, err := minio.New(u.Host, &minio.Options{
		Creds:  credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""),
		Secure: u.Scheme == "https",
		Region: o.Region, // asked for by nobody then
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:   5 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			IdleConnTimeout:       time.Minute,
			MaxIdleConnsPerHost:   64,
			DisableCompression:    true,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot use S3: %w", err)
	}
	return &S3{client, bucket, prefix}, nil
}

// splitS3 takes the URL of a bucket apart.
func splitS3(raw string) (u *url.URL, bucket, prefix string, err error) {
	u, err = url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, "", "", errors.New("the address of S3 must be http or https://HOST[:PORT]/BUCKET[/PREFIX]")
	}
	bucket, prefix, _ = strings.Cut(strings.Trim(u.Path, "/"), "/")
	if bucket == "" {
		return nil, "", "", errors.New("the address of S3 names no bucket: https://HOST[:PORT]/BUCKET")
	}
	if prefix != "" {
		prefix += "/"
	}
	return u, bucket, prefix, nil
}

// Close does nothing: connections end by themselves.
func (b *S3) Close() error { return nil }

func (b *S3) key(s tenant.Scope, id string) (string, error) {
	name, err := nameOf(s, id)
	return b.prefix + name, err
}

// Put implements Store. S3 shows an object when it is whole.
func (b *S3) Put(ctx context.Context, s tenant.Scope, id string, r io.Reader) (int64, error) {
	key, err := b.key(s, id)
	if err != nil {
		return 0, err
	}
	info, err := b.client.PutObject(ctx, b.bucket, key, whileReader{ctx, r}, -1, minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: partSize, NumThreads: 1,
	})
	if err != nil {
		return 0, fmt.Errorf("cannot put an object: %w", err)
	}
	return info.Size, nil
}

// Open implements Store.
func (b *S3) Open(ctx context.Context, s tenant.Scope, id string) (io.ReadCloser, int64, error) {
	key, err := b.key(s, id)
	if err != nil {
		return nil, 0, err
	}
	object, err := b.client.GetObject(ctx, b.bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, 0, absent(err)
	}
	info, err := object.Stat()
	if err != nil {
		object.Close()
		return nil, 0, absent(err)
	}
	return object, info.Size, nil
}

// absent turns S3's word for an object that is not there into ErrNotFound.
func absent(err error) error {
	if code := minio.ToErrorResponse(err).Code; code == minio.NoSuchKey || code == "NotFound" {
		return ErrNotFound
	}
	return fmt.Errorf("cannot read an object: %w", err)
}

// Delete implements Store.
func (b *S3) Delete(ctx context.Context, s tenant.Scope, id string) error {
	key, err := b.key(s, id)
	if err != nil {
		return err
	}
	if err := b.client.RemoveObject(ctx, b.bucket, key, minio.RemoveObjectOptions{}); err != nil && !errors.Is(absent(err), ErrNotFound) {
		return fmt.Errorf("cannot delete an object: %w", err)
	}
	return nil
}

// Link implements Store: a presigned address.
func (b *S3) Link(ctx context.Context, s tenant.Scope, id, name string) (string, error) {
	key, err := b.key(s, id)
	if err != nil {
		return "", err
	}
	query := url.Values{"response-content-disposition": {mime.FormatMediaType("attachment", map[string]string{"filename": name})}}
	u, err := b.client.PresignedGetObject(ctx, b.bucket, key, LinkTime, query)
	if err != nil {
		return "", fmt.Errorf("cannot sign an address: %w", err)
	}
	return u.String(), nil
}

// Erase implements Store.
func (b *S3) Erase(ctx context.Context, s tenant.Scope) error {
	folder, err := folderOf(s)
	if err != nil {
		return err
	}
	prefix := b.prefix + folder + "/"
	for o := range b.client.ListObjects(ctx, b.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return fmt.Errorf("cannot list a company's objects: %w", o.Err)
		}
		if err := b.client.RemoveObject(ctx, b.bucket, o.Key, minio.RemoveObjectOptions{}); err != nil {
			return fmt.Errorf("cannot delete an object: %w", err)
		}
	}
	for o := range b.client.ListIncompleteUploads(ctx, b.bucket, prefix, true) {
		if o.Err != nil {
			return fmt.Errorf("cannot list what was not put to its end: %w", o.Err)
		}
		if err := b.client.RemoveIncompleteUpload(ctx, b.bucket, o.Key); err != nil {
			return fmt.Errorf("cannot delete what was not put to its end: %w", err)
		}
	}
	n := 0
	for o := range b.client.ListObjects(ctx, b.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return fmt.Errorf("cannot count a company's objects: %w", o.Err)
		}
		n++
	}
	return left(n)
}

// Check implements Store.
func (b *S3) Check(ctx context.Context) error {
	there, err := b.client.BucketExists(ctx, b.bucket)
	switch {
	case err != nil:
		return fmt.Errorf("cannot ask for the bucket: %w", err)
	case !there:
		return fmt.Errorf("there is no bucket %q", b.bucket)
	}
	return nil
}

// Versioned reports whether the bucket keeps what is deleted, which an erasure
// must not.
func (b *S3) Versioned(ctx context.Context) (bool, error) {
	v, err := b.client.GetBucketVersioning(ctx, b.bucket)
	if err != nil {
		if code := minio.ToErrorResponse(err).Code; code == "NotImplemented" || code == "VersioningNotConfigured" {
			return false, nil
		}
		return false, fmt.Errorf("cannot ask whether the bucket keeps versions: %w", err)
	}
	return v.Enabled(), nil
}
