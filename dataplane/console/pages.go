package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// contentTypes are those of pages, by the end of their names.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
}

// page is a file, ready to be sent.
type page struct {
	contentType, tag string
	plain, zipped    []byte
}

// addPages reads the pages once: they never change.
func (c *Console) addPages(pages fs.FS) error {
	list, err := fs.ReadDir(pages, ".")
	if err != nil {
		return err
	}
	for _, entry := range list {
		name := entry.Name()
		contentType, known := contentTypes[path.Ext(name)]
		if !known {
			continue
		}
		plain, err := fs.ReadFile(pages, name)
		if err != nil {
			return err
		}
		var hash string
		if name == "index.html" {
			if plain, hash, err = withStyle(plain, pages); err != nil {
				return err
			}
		}
		p, err := newPage(contentType, plain)
		if err != nil {
			return err
		}
		if name == "index.html" {
			name = "{$}"
			c.policy = policyOf(hash)
		}
		c.mux.Handle("GET "+Path+name, p)
	}
	return nil
}

// styleLink names the stylesheet in a document.
var styleLink = regexp.MustCompile(`<link rel="stylesheet" href="([a-z]+\.css)">`)

// withStyle has a document's stylesheet in the document, so that a browser paints it without asking for more. hash is what
// the policy of the pages lets pass by it; empty: the document names no stylesheet.
func withStyle(document []byte, pages fs.FS) (whole []byte, hash string, err error) {
	at := styleLink.FindSubmatchIndex(document)
	if at == nil {
		return document, "", nil
	}
	style, err := fs.ReadFile(pages, string(document[at[2]:at[3]]))
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(style)
	return slices.Concat(document[:at[0]], []byte("<style>"), style, []byte("</style>"), document[at[1]:]), "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'", nil
}

func newPage(contentType string, plain []byte) (*page, error) {
	var zipped bytes.Buffer
	z, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(plain); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(plain)
	return &page{contentType, fmt.Sprintf("%q", hex.EncodeToString(sum[:8])), plain, zipped.Bytes()}, nil
}

// ServeHTTP implements http.Handler.
func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache") // another nsgd has other pages
	h.Set("ETag", p.tag)
	h.Set("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == p.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", p.contentType)
	body := p.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		body = p.zipped
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body) // fails only when the client went away
}
