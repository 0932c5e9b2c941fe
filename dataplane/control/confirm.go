package control

import (
	"context"
	"net/http"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// POST /v1/confirm keeps a run that would have ended without it.
var confirmRoute = post("confirm", func(s *inspect.Service) (*inspect.Confirmed, error) {
	confirmed, err := s.Confirm()
	return confirmed, refusal(http.StatusInternalServerError, err)
})

// Confirm keeps a run that was started with --confirm.
func (c *Client) Confirm(ctx context.Context) (*inspect.Confirmed, error) {
	return confirmRoute.ask(ctx, c, nil, nil)
}
