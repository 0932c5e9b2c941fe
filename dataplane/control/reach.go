package control

import (
	"bytes"
	"context"
	"encoding/json"
	"io"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// POST /v1/reach says who can reach what. Its body is ask.ReachParameters.
var reachRoute = post("reach", func(s *inspect.Service, body io.Reader) (*ask.ReachResult, error) {
	q, err := decodeQuestion[ask.ReachParameters](body, "reach")
	if err != nil {
		return nil, badRequest(err)
	}
	result, err := ask.Reach(s.Snapshot(), q)
	return result, badRequest(err)
})

// Reach asks who can reach what.
func (c *Client) Reach(ctx context.Context, q *ask.ReachParameters) (*ask.ReachResult, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	return reachRoute.ask(ctx, c, nil, bytes.NewReader(body))
}
