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

// POST /v1/reload reads the policy's files again. Flows and counters stay. The status of a
// refusal is 422, and its faults say what Azure would refuse. A client that goes away does not
// end a reload that has begun.
var reloadRoute = post("reload", func(s *inspect.Service) (*inspect.Reloaded, error) {
	reloaded, err := s.Reload()
	return reloaded, refusal(http.StatusUnprocessableEntity, err)
})

// Status asks for the daemon's status.
func (c *Client) Status(ctx context.Context) (*inspect.Status, error) {
	return statusRoute.ask(ctx, c, nil, nil)
}

// Reload tells the daemon to read its policy files again. An *Error lists the faults
// for which it refused.
func (c *Client) Reload(ctx context.Context) (*inspect.Reloaded, error) {
	return reloadRoute.ask(ctx, c, nil, nil)
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

// POST /v1/confirm keeps a run that would have ended without it.
var confirmRoute = post("confirm", func(s *inspect.Service) (*inspect.Confirmed, error) {
	confirmed, err := s.Confirm()
	return confirmed, refusal(http.StatusInternalServerError, err)
})

// Confirm keeps a run that was started with --confirm.
func (c *Client) Confirm(ctx context.Context) (*inspect.Confirmed, error) {
	return confirmRoute.ask(ctx, c, nil, nil)
}
