package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
)

// ErrNoDaemon is wrapped by every error of a Client that found no daemon on the socket.
var ErrNoDaemon = errors.New("no daemon answers")

// deniedError is an ErrNoDaemon too: nothing has answered. There may be one.
type deniedError struct {
	socket string
	err    error
}

// Error says what is not allowed.
func (e *deniedError) Error() string {
	return fmt.Sprintf("permission denied: this user may not ask the daemon on %s: %v", e.socket, e.err)
}

// Unwrap is for errors.Is.
func (e *deniedError) Unwrap() []error { return []error{ErrNoDaemon, e.err} }

// Client asks a running daemon. Safe for concurrent use. An error is an *Error when the
// daemon refused to answer.
type Client struct {
	http         http.Client
	scheme, host string
	most         int64 // bytes of an answer; 0: any
}

// NewClient returns a client for the daemon on that socket. It connects with the first
// question.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		switch {
		case errors.Is(err, fs.ErrPermission):
			return nil, &deniedError{socket, err}
		case err != nil:
			return nil, fmt.Errorf("%w on %s: %w", ErrNoDaemon, socket, err)
		}
		return conn, nil
	}
	return &Client{http: http.Client{Transport: &http.Transport{DialContext: dial}}, scheme: "http", host: "nsgd"}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do asks and turns a refusal into an *Error.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	target := url.URL{Scheme: c.scheme, Host: c.host, Path: "/v1/" + path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("control: %s: %w", path, err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		var where *url.Error // names only the URL
		if errors.As(err, &where) {
			err = where.Err
		}
		return nil, fmt.Errorf("control: %s: %w", path, explained(err))
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(c.bound(response.Body))
	refusal := &Error{Status: response.StatusCode}
	if err == nil && (json.Unmarshal(text, refusal) != nil || refusal.Message == "") {
		refusal.Message = response.Status + ": " + string(bytes.TrimSpace(text))
	}
	return nil, errors.Join(refusal, err)
}

// bound is the part of an answer that is read.
func (c *Client) bound(body io.Reader) io.Reader {
	if c.most == 0 {
		return body
	}
	return io.LimitReader(body, c.most)
}
