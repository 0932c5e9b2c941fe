package control

import (
	"bytes"
	"context"
	"encoding/json"
	"io"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// POST /v1/diagnose answers NSG diagnostics. Its body is azure.NetworkConfigurationDiagnosticParameters.
var diagnoseRoute = post("diagnose", func(s *inspect.Service, body io.Reader) (*azure.NetworkConfigurationDiagnosticResponse, error) {
	q, err := decodeBody[azure.NetworkConfigurationDiagnosticParameters](body, "a question of NSG diagnostics")
	if err != nil {
		return nil, badRequest(err)
	}
	response, err := ask.Diagnose(s.Snapshot(), q)
	return response, badRequest(err)
})

// Diagnose asks for NSG diagnostics.
func (c *Client) Diagnose(ctx context.Context, q *azure.NetworkConfigurationDiagnosticParameters) (*azure.NetworkConfigurationDiagnosticResponse, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	return diagnoseRoute.ask(ctx, c, nil, bytes.NewReader(body))
}
