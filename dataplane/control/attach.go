package control

import (
	"context"
	"net/http"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// AttachParameters is an attachment.
type AttachParameters struct {
	// Attachment is one of the configuration's attachments, as YAML or JSON.
	Attachment string `json:"attachment"`
	// Keep keeps it when the configuration is read again.
	Keep bool `json:"keep,omitempty"`
}

// DetachParameters names an attachment, as the status does.
type DetachParameters struct {
	Name string `json:"name"`
	// Keep keeps it detached when the configuration is read again.
	Keep bool `json:"keep,omitempty"`
}

// CheckParameters names a configuration file.
type CheckParameters struct {
	Configuration string `json:"configuration"` // an absolute path
}

// POST /v1/attach attaches something, in the time of one reload. The others carry on. The status of a refusal is 422.
var attachRoute = asks("attach", "an attachment", change, func(ctx context.Context, s *inspect.Service, q *AttachParameters) (*inspect.Reloaded, error) {
	reloaded, err := s.Attach(inspect.Edit{Attach: q.Attachment, Keep: q.Keep, Cause: clientOf(ctx).name})
	return reloaded, refusal(http.StatusUnprocessableEntity, err)
})

// Attach attaches something.
func (c *Client) Attach(ctx context.Context, q *AttachParameters) (*inspect.Reloaded, error) {
	return attachRoute.put(ctx, c, q)
}

// POST /v1/detach detaches something. Its flows end; the others carry on. The status of a refusal is 422.
var detachRoute = asks("detach", "a name", change, func(ctx context.Context, s *inspect.Service, q *DetachParameters) (*inspect.Reloaded, error) {
	reloaded, err := s.Attach(inspect.Edit{Detach: q.Name, Keep: q.Keep, Cause: clientOf(ctx).name})
	return reloaded, refusal(http.StatusUnprocessableEntity, err)
})

// Detach detaches something.
func (c *Client) Detach(ctx context.Context, q *DetachParameters) (*inspect.Reloaded, error) {
	return detachRoute.put(ctx, c, q)
}

// POST /v1/check says what a reload of a configuration file would change, or why it would be refused (422).
// Nothing changes.
var checkRoute = asks("check", "a configuration", change, func(_ context.Context, s *inspect.Service, q *CheckParameters) (*inspect.AttachmentChanges, error) {
	changes, err := s.Check(q.Configuration)
	return changes, refusal(http.StatusUnprocessableEntity, err)
})

// Check asks what a reload of a configuration file would change.
func (c *Client) Check(ctx context.Context, q *CheckParameters) (*inspect.AttachmentChanges, error) {
	return checkRoute.put(ctx, c, q)
}
