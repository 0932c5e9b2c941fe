package control

import (
	"context"
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
