package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// POST /v1/reload reads the configuration and the policy again. Flows and counters stay. With confirm=60s the daemon
// returns to what was in force, unless /v1/confirm comes within that time. With maxCut=N it refuses a policy that would
// cut more live flows. The status of a refusal is 422, and its
// faults say what Azure would refuse; 409 while another reload waits, or an upgrade is under way. A client that goes away does not end a reload.
var reloadRoute = value(http.MethodPost, "reload", change, func(s *inspect.Service, r *http.Request) (*inspect.Reloaded, error) {
	q, err := parseReload(r)
	if err != nil {
		return nil, err
	}
	reloaded, err := s.Reload(q)
	return reloaded, reloadRefusal(err)
})

// reloadRefusal gives the refusal of a reload its status.
func reloadRefusal(err error) error {
	if errors.Is(err, inspect.ErrUnconfirmed) || errors.Is(err, inspect.ErrUpgrading) || errors.Is(err, inspect.ErrOutdated) || errors.Is(err, inspect.ErrClustered) {
		return refusal(http.StatusConflict, err)
	}
	return refusal(http.StatusUnprocessableEntity, err)
}

// parseReload reads how to reload.
func parseReload(r *http.Request) (q inspect.ReloadRequest, err error) {
	query := r.URL.Query()
	q.Cause = clientOf(r.Context()).name
	if q.ConfirmWithin, err = parseConfirm(query); err != nil {
		return q, err
	}
	if query.Get("maxCut") == "" {
		return q, nil
	}
	n, err := parseNumber(query, "maxCut", 0, conntrack.MaxFlows)
	q.MaxCut = &n
	return q, err
}

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
	return c.ReloadAs(ctx, inspect.ReloadRequest{ConfirmWithin: confirmWithin})
}

// ReloadAs is Reload as a request says. The daemon names the Cause.
func (c *Client) ReloadAs(ctx context.Context, q inspect.ReloadRequest) (*inspect.Reloaded, error) {
	if q.MaxCut != nil {
		if _, err := c.Reloads(ctx); err != nil { // which a daemon lacks that knows no maxCut
			return nil, err
		}
	}
	return c.change(ctx, reloadRoute, q)
}

// change asks for a reload, or for what is one.
func (c *Client) change(ctx context.Context, route endpoint[*inspect.Reloaded], q inspect.ReloadRequest) (*inspect.Reloaded, error) {
	query := url.Values{}
	if q.ConfirmWithin > 0 {
		query.Set("confirm", q.ConfirmWithin.String())
	}
	if q.MaxCut != nil {
		query.Set("maxCut", strconv.Itoa(*q.MaxCut))
	}
	reloaded, err := route.ask(ctx, c, query, nil)
	if err == nil && q.ConfirmWithin > 0 && reloaded.ConfirmBy == nil {
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
