package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// POST /v1/reload reads the configuration and the policy again. Flows and counters stay. With confirm=60s the daemon
// returns to what was in force, unless /v1/confirm comes within that time. The status of a refusal is 422, and its
// faults say what Azure would refuse; 409 while another reload waits, or an upgrade is under way. A client that goes away does not end a reload.
var reloadRoute = value(http.MethodPost, "reload", change, func(s *inspect.Service, r *http.Request) (*inspect.Reloaded, error) {
	within, err := parseConfirm(r.URL.Query())
	if err != nil {
		return nil, err
	}
	reloaded, err := s.Reload(inspect.ReloadRequest{Cause: clientOf(r.Context()).name, ConfirmWithin: within})
	if errors.Is(err, inspect.ErrUnconfirmed) || errors.Is(err, inspect.ErrUpgrading) {
		return nil, refusal(http.StatusConflict, err)
	}
	return reloaded, refusal(http.StatusUnprocessableEntity, err)
})

// parseConfirm reads how long a reload waits for its confirmation; an absent value is 0.
func parseConfirm(query url.Values) (time.Duration, error) {
	text := query.Get("confirm")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < inspect.MinConfirm || d > inspect.MaxConfirm {
		return 0, badRequest(fmt.Errorf("confirm: %q: allowed are %v to %v", text, inspect.MinConfirm, inspect.MaxConfirm))
	}
	return d, nil
}

// Reload tells the daemon to read its configuration and policy again. An *Error lists the faults for which it refused.
// With confirmWithin, unless that is 0, the daemon returns to what was in force when no Confirm comes in time.
func (c *Client) Reload(ctx context.Context, confirmWithin time.Duration) (*inspect.Reloaded, error) {
	var query url.Values
	if confirmWithin > 0 {
		query = url.Values{"confirm": {confirmWithin.String()}}
	}
	reloaded, err := reloadRoute.ask(ctx, c, query, nil)
	if err == nil && confirmWithin > 0 && reloaded.ConfirmBy == nil {
		return nil, errors.New("control: reload: the daemon is older and has reloaded without waiting for a confirmation")
	}
	return reloaded, err
}

// POST /v1/confirm keeps a reload that would be taken back without it, and a run that would end.
var confirmRoute = post("confirm", func(s *inspect.Service) (*inspect.Confirmed, error) {
	confirmed, err := s.Confirm()
	return confirmed, refusal(http.StatusInternalServerError, err)
})

// Confirm keeps what waits for a confirmation.
func (c *Client) Confirm(ctx context.Context) (*inspect.Confirmed, error) {
	return confirmRoute.ask(ctx, c, nil, nil)
}
