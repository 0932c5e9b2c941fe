package control

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// POST /v1/candidate begins to judge a policy beside the one in force. The status of files that are no policy is 422, and
// 409 while another candidate is judged.
var candidateStartRoute = value(http.MethodPost, "candidate", change, func(s *inspect.Service, r *http.Request) (*inspect.Candidate, error) {
	q, err := decodeQuestion[inspect.CandidateQuestion](r.Body, "a candidate")
	if err == nil {
		err = q.Check()
	}
	if err != nil {
		return nil, badRequest(err)
	}
	c, err := s.StartCandidate(q, clientOf(r.Context()).name)
	if errors.Is(err, inspect.ErrCandidate) {
		return nil, refusal(http.StatusConflict, err)
	}
	return c, refusal(http.StatusUnprocessableEntity, err)
})

// StartCandidate has the daemon judge a policy beside the one in force. An *Error lists the faults for which it is none.
func (c *Client) StartCandidate(ctx context.Context, q *inspect.CandidateQuestion) (*inspect.Candidate, error) {
	return question[inspect.CandidateQuestion, *inspect.Candidate]{candidateStartRoute}.put(ctx, c, q)
}

// GET /v1/candidate says what the candidate would do otherwise. It has no query.
var candidateRoute = get("candidate", func(s *inspect.Service, _ url.Values) (*inspect.Candidate, error) {
	c, err := s.Candidate()
	return c, notFound(err)
})

// Candidate asks what the candidate would do otherwise.
func (c *Client) Candidate(ctx context.Context) (*inspect.Candidate, error) {
	return candidateRoute.ask(ctx, c, nil, nil)
}

// GET /v1/candidateFlows lists the live flows that the candidate would cut now, at most limit.
var candidateFlowsRoute = get("candidateFlows", func(s *inspect.Service, query url.Values) (*inspect.LiveFlows, error) {
	limit, err := parseNumber(query, "limit", 0, inspect.MaxFlowLimit)
	if err != nil {
		return nil, err
	}
	flows, err := s.CandidateFlows(limit)
	return flows, notFound(err)
})

// CandidateFlows lists the live flows that the candidate would cut now.
func (c *Client) CandidateFlows(ctx context.Context, limit int) (*inspect.LiveFlows, error) {
	return candidateFlowsRoute.ask(ctx, c, url.Values{"limit": {strconv.Itoa(limit)}}, nil)
}

// POST /v1/candidatePromote makes the candidate the policy in force: query, status and answer are those of /v1/reload. 404:
// there is none.
var candidatePromoteRoute = value(http.MethodPost, "candidatePromote", change, func(s *inspect.Service, r *http.Request) (*inspect.Reloaded, error) {
	q, err := parseReload(r)
	if err != nil {
		return nil, err
	}
	reloaded, err := s.PromoteCandidate(q)
	if errors.Is(err, inspect.ErrNoCandidate) {
		return nil, notFound(err)
	}
	return reloaded, reloadRefusal(err)
})

// PromoteCandidate makes the candidate the policy in force.
func (c *Client) PromoteCandidate(ctx context.Context, q inspect.ReloadRequest) (*inspect.Reloaded, error) {
	return c.change(ctx, candidatePromoteRoute, q)
}

// POST /v1/candidateAbort forgets the candidate, and answers what was found out.
var candidateAbortRoute = post("candidateAbort", func(s *inspect.Service) (*inspect.Candidate, error) {
	c, err := s.AbortCandidate()
	return c, notFound(err)
})

// AbortCandidate forgets the candidate.
func (c *Client) AbortCandidate(ctx context.Context) (*inspect.Candidate, error) {
	return candidateAbortRoute.ask(ctx, c, nil, nil)
}
