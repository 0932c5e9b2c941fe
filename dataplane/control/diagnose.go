package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// POST /v1/diagnose answers NSG diagnostics. Its body is azure.NetworkConfigurationDiagnosticParameters.
var diagnoseRoute = post("diagnose", func(s *inspect.Service, body io.Reader) (*azure.NetworkConfigurationDiagnosticResponse, error) {
	q, err := decodeQuestion[azure.NetworkConfigurationDiagnosticParameters](body, "NSG diagnostics")
	if err != nil {
		return nil, badRequest(err)
	}
	response, err := ask.Diagnose(s.Snapshot(), q)
	return response, badRequest(err)
})

// decodeQuestion reads a question strictly. verb names it for messages. Package serve bounds the body.
func decodeQuestion[T any](r io.Reader, verb string) (*T, error) {
	q := new(T)
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(q); err != nil {
		return nil, fmt.Errorf("not a question of %s: %w", verb, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("not a question of %s: more than one JSON value", verb)
	}
	return q, nil
}

// Diagnose asks for NSG diagnostics.
func (c *Client) Diagnose(ctx context.Context, q *azure.NetworkConfigurationDiagnosticParameters) (*azure.NetworkConfigurationDiagnosticResponse, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	return diagnoseRoute.ask(ctx, c, nil, bytes.NewReader(body))
}
