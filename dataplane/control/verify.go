package control

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/serve"
)

// POST /v1/verify answers requests in its body, one a line, with a line each; see
// ask.VerifyStream. With path=true the other end is judged too.
var verifyPath = addRoute("verify", look, (*Server).verify, http.MethodPost)

// verify reads and writes at the same time, so that a batch of any size needs no
// memory and a peer may wait for each answer.
func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	path, err := parseFlag(r.URL.Query(), "path")
	if err != nil {
		refuse(w, err)
		return
	}
	snapshot, err := s.service.Asked()
	if err != nil {
		refuse(w, err)
		return
	}
	if err := serve.Stream(w, clientOf(r.Context()).denied == nil); err != nil {
		refuse(w, err)
		return
	}
	control := http.NewResponseController(w)
	if err := control.EnableFullDuplex(); err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	// Without the headers, a client that waits for them before it sends would hang.
	w.WriteHeader(http.StatusOK)
	if err := control.Flush(); err != nil {
		return
	}
	// The status is sent: an error can only cut the answer off, which the client sees.
	if err := ask.VerifyStream(snapshot, path, r.Body, w); err != nil {
		s.service.Log().Debug("verify ended early", "error", err)
		panic(http.ErrAbortHandler)
	}
}

// Verify sends requests while it receives results; see ask.VerifyStream.
func (c *Client) Verify(ctx context.Context, path bool, requests io.Reader, results io.Writer) error {
	// NopCloser hides a file's length and Close: the transport must do neither.
	response, err := c.do(ctx, http.MethodPost, verifyPath, url.Values{"path": {strconv.FormatBool(path)}}, io.NopCloser(requests))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(results, response.Body); err != nil {
		return fmt.Errorf("control: verify: %w", err)
	}
	return nil
}
