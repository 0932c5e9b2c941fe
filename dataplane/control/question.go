package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// question is an endpoint whose question is one JSON value in the body of a POST.
type question[Q, A any] struct{ endpoint[A] }

// asks registers a question. what names it for messages. The context is over when the client has gone away. An error of
// the answer is the question's fault, if it is no *Error.
func asks[Q, A any](path, what string, role role, answer func(context.Context, *inspect.Service, *Q) (*A, error)) question[Q, *A] {
	return question[Q, *A]{value(http.MethodPost, path, role, func(s *inspect.Service, r *http.Request) (*A, error) {
		q, err := decodeQuestion[Q](r.Body, what)
		if err != nil {
			return nil, badRequest(err)
		}
		result, err := answer(r.Context(), s, q)
		return result, badRequest(err)
	})}
}

// decodeQuestion reads a question strictly. Package serve bounds the body.
func decodeQuestion[Q any](r io.Reader, what string) (*Q, error) {
	q := new(Q)
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(q); err != nil {
		return nil, fmt.Errorf("not a question of %s: %w", what, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("not a question of %s: more than one JSON value", what)
	}
	return q, nil
}

// put puts a question to the daemon.
func (e question[Q, A]) put(ctx context.Context, c *Client, q *Q) (answer A, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return answer, err
	}
	return e.ask(ctx, c, nil, bytes.NewReader(body))
}

// POST /v1/diagnose answers NSG diagnostics.
var diagnoseRoute = asks("diagnose", "NSG diagnostics", look, func(_ context.Context, s *inspect.Service, q *azure.NetworkConfigurationDiagnosticParameters) (*azure.NetworkConfigurationDiagnosticResponse, error) {
	snapshot, err := s.Asked()
	if err != nil {
		return nil, err
	}
	return ask.Diagnose(snapshot, q)
})

// Diagnose asks for NSG diagnostics.
func (c *Client) Diagnose(ctx context.Context, q *azure.NetworkConfigurationDiagnosticParameters) (*azure.NetworkConfigurationDiagnosticResponse, error) {
	return diagnoseRoute.put(ctx, c, q)
}

// POST /v1/reach says who can reach what.
var reachRoute = asks("reach", "reach", look, func(ctx context.Context, s *inspect.Service, q *ask.ReachParameters) (*ask.ReachResult, error) {
	snapshot, err := s.Asked()
	if err != nil {
		return nil, err
	}
	return ask.Reach(ctx, snapshot, q)
})

// Reach asks who can reach what.
func (c *Client) Reach(ctx context.Context, q *ask.ReachParameters) (*ask.ReachResult, error) {
	return reachRoute.put(ctx, c, q)
}

// POST /v1/explain says what becomes of packets between two ends.
var explainRoute = asks("explain", "explain", look, func(ctx context.Context, s *inspect.Service, q *ask.ExplainParameters) (*inspect.Explained, error) {
	return s.Explain(ctx, q)
})

// Explain asks what becomes of packets between two ends.
func (c *Client) Explain(ctx context.Context, q *ask.ExplainParameters) (*inspect.Explained, error) {
	return explainRoute.put(ctx, c, q)
}

// POST /v1/diff compares the policy that runs with files, and says which live flows these would end. The status of
// files that are no policy is 422. Nothing changes.
var diffRoute = asks("diff", "the running policy", change, func(_ context.Context, s *inspect.Service, q *inspect.RunningQuestion) (*inspect.RunningDiff, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	diff, err := s.Diff(q)
	return diff, refusal(http.StatusUnprocessableEntity, err)
})

// Diff asks what files would change of the policy that runs. An *Error lists the faults for which they are no policy.
func (c *Client) Diff(ctx context.Context, q *inspect.RunningQuestion) (*inspect.RunningDiff, error) {
	return diffRoute.put(ctx, c, q)
}
