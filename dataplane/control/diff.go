package control

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// POST /v1/diff compares the policy that runs with files, and says which live flows these would end. Its body is
// inspect.RunningQuestion. The status of files that are no policy is 422. Nothing changes.
var diffRoute = post("diff", func(s *inspect.Service, body io.Reader) (*inspect.RunningDiff, error) {
	q, err := decodeQuestion[inspect.RunningQuestion](body, "the running policy")
	if err == nil {
		err = q.Check()
	}
	if err != nil {
		return nil, badRequest(err)
	}
	diff, err := s.Diff(q)
	return diff, refusal(http.StatusUnprocessableEntity, err)
})

// Diff asks what files would change of the policy that runs. An *Error lists the faults for which they are no policy.
func (c *Client) Diff(ctx context.Context, q *inspect.RunningQuestion) (*inspect.RunningDiff, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	return diffRoute.ask(ctx, c, nil, bytes.NewReader(body))
}
