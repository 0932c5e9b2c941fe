package control

import (
	"context"
	"net/url"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// GET /v1/names lists the names of the policy's resources. It has no query.
var namesRoute = get("names", func(s *inspect.Service, _ url.Values) (*inspect.Names, error) {
	return s.Names(), nil
})

// Names lists the names in the running policy, for completions.
func (c *Client) Names(ctx context.Context) (*inspect.Names, error) {
	return namesRoute.ask(ctx, c, nil, nil)
}
