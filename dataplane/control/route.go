package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/serve"
	"github.com/nsgd/nsgd/dataplane/watch"
)

// routes are all that a server answers. Verbs add theirs when the program starts.
var routes []route

// route is one path below /v1/.
type route struct {
	methods []string
	path    string
	role    role // that a peer needs
	answer  func(*Server, http.ResponseWriter, *http.Request)
}

// addRoute registers a route, and returns its path for the client.
func addRoute(path string, role role, answer func(*Server, http.ResponseWriter, *http.Request), methods ...string) string {
	routes = append(routes, route{methods, path, role, answer})
	return path
}

// endpoint is a route that answers with one JSON value.
type endpoint[T any] struct{ method, path string }

// get registers a GET whose question is in the query, for who looks.
func get[T any](path string, answer func(*inspect.Service, url.Values) (T, error)) endpoint[T] {
	return value(http.MethodGet, path, look, func(s *inspect.Service, r *http.Request) (T, error) { return answer(s, r.URL.Query()) })
}

// post registers a POST without a question, for who changes.
func post[T any](path string, answer func(*inspect.Service) (T, error)) endpoint[T] {
	return value(http.MethodPost, path, change, func(s *inspect.Service, _ *http.Request) (T, error) { return answer(s) })
}

func value[T any](method, path string, role role, answer func(*inspect.Service, *http.Request) (T, error)) endpoint[T] {
	addRoute(path, role, func(s *Server, w http.ResponseWriter, r *http.Request) {
		result, err := answer(s.service, r)
		if err != nil {
			refuse(w, err)
			return
		}
		serve.Hold(w)
		writeJSON(w, http.StatusOK, result)
	}, method)
	return endpoint[T]{method, path}
}

// ask puts the question to the daemon. body may be nil.
func (e endpoint[T]) ask(ctx context.Context, c *Client, query url.Values, body io.Reader) (result T, err error) {
	response, err := c.do(ctx, e.method, e.path, query, body)
	if err != nil {
		return result, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(c.bound(response.Body)).Decode(&result); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: the daemon has ended, or has waited for this reader for more than %v, or had more readers than it may", err, serve.Timeout)
			if c.most > 0 {
				err = fmt.Errorf("%w, or the answer has more than %d bytes", err, c.most)
			}
		}
		return result, fmt.Errorf("control: %s: answer of the daemon: %w", e.path, err)
	}
	return result, nil
}

// Error is a refusal, and the JSON body of an HTTP answer that is not 200.
type Error struct {
	// Status is the HTTP status; not part of the body.
	Status  int    `json:"-"`
	Message string `json:"error"`
	// Faults are set when a policy was refused for what its documents say.
	Faults []inspect.Fault `json:"faults,omitempty"`
	// Reload is the id in the log of the reload that was refused; absent of other refusals.
	Reload string `json:"reload,omitempty"`
}

// Error is the message; it lists the faults where there are any.
func (e *Error) Error() string { return e.Message }

// BadRequest reports that the question was wrong, whatever the policy is.
func (e *Error) BadRequest() bool { return e.Status == http.StatusBadRequest }

func badRequest(err error) error { return refusal(http.StatusBadRequest, err) }

func notFound(err error) error { return refusal(http.StatusNotFound, err) }

// refusal gives an error the form of an answer. Nil stays nil, and an *Error stays itself.
func refusal(status int, err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	if errors.Is(err, watch.ErrWatchers) || errors.Is(err, serve.ErrStreams) {
		status = http.StatusServiceUnavailable
	}
	e = &Error{Status: status, Message: err.Error()}
	var reload *inspect.ReloadError
	if errors.As(err, &reload) {
		e.Reload = reload.ID
	}
	var policy *inspect.PolicyError
	if errors.As(err, &policy) {
		e.Faults = append(inspect.Faults(policy.Faults), inspect.Faults(policy.Unresolved)...)
	}
	return e
}

// refuse writes an error in the place of an answer.
func refuse(w http.ResponseWriter, err error) {
	var e *Error
	errors.As(refusal(http.StatusInternalServerError, err), &e)
	writeJSON(w, e.Status, e)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // fails only when the client went away
}

// parseFlag reads true or false; an absent value is false.
func parseFlag(query url.Values, name string) (bool, error) {
	text := query.Get(name)
	if text == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, badRequest(fmt.Errorf("%s: %q: allowed are true and false", name, text))
	}
	return v, nil
}

// parseNumber reads a whole number; an absent one is 0.
func parseNumber(query url.Values, name string, least, most int) (int, error) {
	text := query.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, badRequest(fmt.Errorf("%s: %q: allowed are %d to %d", name, text, least, most))
	}
	return n, nil
}
