package web

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// fileObject is OpenAI's file object, with whom it is shared beside.
type fileObject struct {
	ID            string  `json:"id"`
	Object        string  `json:"object"`
	Bytes         int64   `json:"bytes"`
	CreatedAt     int64   `json:"created_at"`
	ExpiresAt     *int64  `json:"expires_at"`
	Filename      string  `json:"filename"`
	Purpose       string  `json:"purpose"`
	Status        string  `json:"status"`
	StatusDetails *string `json:"status_details"`
	Shared        *string `json:"shared"`
}

func toFile(f rag.File) fileObject {
	return fileObject{ID: f.ID, Object: "file", Bytes: f.Bytes, CreatedAt: f.CreatedAt.Unix(), ExpiresAt: unixTime(f.ExpiresAt),
		Filename: f.Name, Purpose: f.Purpose, Status: "processed", Shared: sharedWith(f.Shared)}
}

// withCompany is the only value of shared but null, which is the project alone.
const withCompany = "company"

func sharedWith(shared bool) *string {
	if !shared {
		return nil
	}
	with := withCompany
	return &with
}

// readShared reads the field shared. What an admin key makes belongs to no project,
// so it is always shared.
func readShared(s tenant.Scope, v *string) (bool, error) {
	if v != nil && *v != withCompany {
		return false, fault.Field("shared", `shared must be "company" or absent.`)
	}
	return v != nil || s.ProjectID() == "", nil
}

// owns refuses a change of what another project of the company has shared.
func (r *request) owns(project string) error {
	if own := r.scope.ProjectID(); own != "" && own != project {
		return fault.New(fault.Forbidden, "Another project of your company shares this with yours. Only a key of that project, or an admin key, may change it.").WithCode("not_the_owner")
	}
	return nil
}

// Bounds of a page of files: OpenAI's. One page has fewer where the store says so.
const filesMost = 10_000

func (g *Gateway) listFiles(r *request) (any, error) {
	p, err := r.page(filesMost, filesMost)
	if err != nil {
		return nil, err
	}
	purpose := r.query("purpose")
	if purpose != "" {
		if err := checkPurpose(purpose); err != nil {
			return nil, err
		}
	}
	items, more, err := g.Knowledge.Files.Files(r.ctx, r.scope, purpose, p)
	return listed(p, items, more, err, toFile, func(o fileObject) string { return o.ID })
}

func checkPurpose(purpose string) error {
	switch purpose {
	case rag.ForAssistants, rag.ForUserData:
		return nil
	case "":
		return fault.Field("purpose", "purpose is required: assistants or user_data.")
	}
	return fault.Field("purpose", "The gateway keeps files with the purpose assistants or user_data. It has no %.32q.", purpose).WithCode("unsupported_purpose")
}

func (g *Gateway) getFile(r *request) (any, error) {
	f, err := g.Knowledge.Files.File(r.ctx, r.scope, r.param("file"))
	return toFile(f), err
}

func (g *Gateway) deleteFile(r *request) (any, error) {
	f, err := g.Knowledge.Files.File(r.ctx, r.scope, r.param("file"))
	if err == nil {
		err = r.owns(f.ProjectID)
	}
	if err == nil {
		err = g.Knowledge.Files.DeleteFile(r.ctx, r.scope, f.ID)
	}
	return deleted{ID: f.ID, Object: "file", Deleted: true}, err
}

// getFileContent sends the bytes of a file, or where they are. They are a
// download whatever they are: nothing that a company keeps is shown as a page.
func (g *Gateway) getFileContent(r *request) (any, error) {
	f, err := g.Knowledge.Files.File(r.ctx, r.scope, r.param("file"))
	if err != nil {
		return nil, err
	}
	g.Audit.Read(audit.Proved(r.scope), "file")
	h := &r.rc.Response.Header
	if r.settings.Knowledge.Redirect {
		url, err := g.Knowledge.Blobs.Link(r.ctx, r.scope, f.ID, f.Name)
		if err != nil {
			return nil, blobAway(err)
		}
		if url != "" {
			h.Set(fasthttp.HeaderLocation, url)
			h.Set(fasthttp.HeaderCacheControl, "no-store")
			r.rc.SetStatusCode(fasthttp.StatusFound)
			return nil, nil
		}
	}
	t, err := g.transfers.begin(r.scope.ID().String(), &r.settings.Knowledge)
	if err != nil {
		return nil, err
	}
	body, size, err := g.Knowledge.Blobs.Open(t.ctx, r.scope, f.ID)
	if err != nil {
		t.end()
		return nil, blobAway(err)
	}
	h.SetContentType("application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(fasthttp.HeaderContentDisposition, disposition(f.Name))
	conn, timeout := r.rc.Conn(), r.settings.WriteTimeout
	r.rc.SetBodyStream(&download{body, t, func() { _ = conn.SetWriteDeadline(time.Now().Add(timeout)) }}, int(size))
	return nil, nil
}

func disposition(name string) string {
	if d := mime.FormatMediaType("attachment", map[string]string{"filename": name}); d != "" {
		return d
	}
	return "attachment"
}

// blobAway is the answer where the bytes of a file cannot be had. That they are
// gone although the file is there is no fault of the client's either.
func blobAway(err error) error {
	return fault.Wrap(fault.Unavailable, err, "The files cannot be reached at the moment.").WithCode("files_unavailable")
}

// download is a file on its way to the client, who must take some of it from time
// to time.
type download struct {
	io.ReadCloser
	t     *transfer
	alive func()
}

func (d *download) Read(b []byte) (int, error) {
	d.alive()
	return d.ReadCloser.Read(b)
}

func (d *download) Close() error {
	defer d.t.end()
	return d.ReadCloser.Close()
}

// expiresAfter is OpenAI's expires_after of files.
type expiresAfter struct {
	Anchor  string
	Seconds int64
}

// Bounds of expires_after: OpenAI's.
const (
	expiresLeast = 3600
	expiresMost  = 30 * 24 * 3600
)

func (e *expiresAfter) at(created time.Time) (time.Time, error) {
	switch {
	case *e == expiresAfter{}:
		return time.Time{}, nil
	case e.Anchor != "created_at":
		return time.Time{}, fault.Field("expires_after.anchor", "anchor must be created_at.")
	case e.Seconds < expiresLeast || e.Seconds > expiresMost:
		return time.Time{}, fault.Field("expires_after.seconds", "seconds must be from %d to %d.", expiresLeast, expiresMost)
	}
	return created.Add(time.Duration(e.Seconds) * time.Second), nil
}

// set takes a field of a form, or the whole as JSON.
func (e *expiresAfter) set(name, value string) error {
	var n json.Number
	switch name {
	case "expires_after[anchor]":
		e.Anchor = value
		return nil
	case "expires_after[seconds]":
		n = json.Number(value)
	default:
		var b struct {
			Anchor  string      `json:"anchor"`
			Seconds json.Number `json:"seconds"`
		}
		if err := json.Unmarshal([]byte(value), &b); err != nil {
			return fault.Field("expires_after", "expires_after is an object with anchor and seconds.")
		}
		e.Anchor, n = b.Anchor, b.Seconds
	}
	seconds, err := n.Int64()
	if err != nil {
		return fault.Field("expires_after.seconds", "seconds must be a whole number.")
	}
	e.Seconds = seconds
	return nil
}

// endUploadTimeout bounds how long it may take to take back what was begun.
const endUploadTimeout = 5 * time.Second

// dropUpload takes back a file that was not received to its end.
func (g *Gateway) dropUpload(s tenant.Scope, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), endUploadTimeout)
	defer cancel()
	return g.Knowledge.Files.DeleteFile(ctx, s, id)
}
