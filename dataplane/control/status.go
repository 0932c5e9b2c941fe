package control

import (
	"context"
	"net/http"
	"net/url"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// GET /v1/status says how the daemon does. It has no query. A watchdog can ask it often: it
// reads counters, and walks over nothing but the attachments and the backends.
var statusRoute = get("status", func(s *inspect.Service, _ url.Values) (*inspect.Status, error) {
	return s.Status(), nil
})

// Status asks for the daemon's status.
func (c *Client) Status(ctx context.Context) (*inspect.Status, error) {
	return statusRoute.ask(ctx, c, nil, nil)
}

// POST /v1/upgrade has the program that is installed now go on. It answers once that is prepared.
var upgradeRoute = value(http.MethodPost, "upgrade", change, func(s *inspect.Service, r *http.Request) (*inspect.Upgraded, error) {
	upgraded, err := s.Upgrade(r.Context())
	return upgraded, refusal(http.StatusConflict, err)
})

// Upgrade has the program that is installed now go on.
func (c *Client) Upgrade(ctx context.Context) (*inspect.Upgraded, error) {
	return upgradeRoute.ask(ctx, c, nil, nil)
}
