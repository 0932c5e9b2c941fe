package control

import (
	"bytes"
	"context"
	"encoding/json"
	"io"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// POST /v1/explain says what becomes of packets between two ends. Its body is ask.ExplainParameters.
var explainRoute = post("explain", func(s *inspect.Service, body io.Reader) (*inspect.Explained, error) {
	q, err := decodeQuestion[ask.ExplainParameters](body, "explain")
	if err != nil {
		return nil, badRequest(err)
	}
	result, err := s.Explain(q)
	return result, badRequest(err)
})

// Explain asks what becomes of packets between two ends.
func (c *Client) Explain(ctx context.Context, q *ask.ExplainParameters) (*inspect.Explained, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	return explainRoute.ask(ctx, c, nil, bytes.NewReader(body))
}
