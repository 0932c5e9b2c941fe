// Package console answers the pages of the console: what package inspect tells, as JSON and as server-sent events. It
// changes nothing, reads no file that a client names, and shows no packet's payload.
//
// Who looks never makes the packet path wait, and nothing is computed while nobody looks. Clients who look at the same share
// one computation (see shared and tap). A client who does not read loses its connection. Pages of other origins can ask
// nothing: a page's name may lead to this host (DNS rebinding), so the name is checked.
package console

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/serve"
)

// Path is where a Console answers; all that it answers is below.
const Path = "/console/"

const (
	// maxQuestions bounds the questions that are answered at a time. More wait, up to serve.Timeout.
	maxQuestions = 4
	// patience bounds an answer that can be interrupted.
	patience = 30 * time.Second
)

// Options are what a Console works with.
type Options struct {
	Service *inspect.Service
	// Pages has index.html, and what that names, at its root.
	Pages fs.FS
	// Now is the wall clock; nil: time.Now.
	Now func() time.Time
}

// Console answers below Path. Safe for concurrent use.
type Console struct {
	service *inspect.Service
	now     func() time.Time
	mux     *http.ServeMux
	policy  string // of its pages: Content-Security-Policy

	questions chan struct{} // a place each
	captures  chan struct{} // a place each
	answers   answers
	taps      taps
	ending    context.Context
	end       context.CancelFunc
}

// New returns a console. The error is about its pages.
func New(o Options) (*Console, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Console{service: o.Service, now: o.Now, mux: http.NewServeMux(), questions: make(chan struct{}, maxQuestions), captures: make(chan struct{}, maxCaptures)}
	c.answers.now, c.taps.service = o.Now, o.Service
	c.ending, c.end = context.WithCancel(context.Background())
	if err := c.addPages(o.Pages); err != nil {
		return nil, err
	}
	c.addData()
	c.addEvents()
	return c, nil
}

// End ends all answers that have no end.
func (c *Console) End() { c.end() }

// ServeHTTP implements http.Handler.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	protect(w.Header(), c.policy)
	if err := checkOrigin(r); err != nil {
		refuse(w, http.StatusForbidden, err)
		return
	}
	c.mux.ServeHTTP(w, r)
}

// refuse writes an error in the place of an answer.
func refuse(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, mustMarshal(map[string]string{"error": err.Error()}))
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(body) // fails only when the client went away
}

func mustMarshal(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // the types of answers are fixed
	}
	return body
}

// statusOf is the status of a refusal.
func statusOf(err error) int {
	switch {
	case errors.Is(err, inspect.ErrNoCandidate), errors.Is(err, inspect.ErrNoHistory):
		return http.StatusNotFound
	case errors.Is(err, errBusy), errors.Is(err, serve.ErrStreams):
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}
