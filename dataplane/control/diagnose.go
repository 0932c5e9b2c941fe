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

// maxDiagnosticLen bounds the body of a question; a profile needs some hundred bytes.
const maxDiagnosticLen = 1 << 20

// POST /v1/diagnose answers NSG diagnostics. Its body is azure.NetworkConfigurationDiagnosticParameters.
var diagnoseRoute = post("diagnose", func(s *inspect.Service, body io.Reader) (*azure.NetworkConfigurationDiagnosticResponse, error) {
	q, err := decodeDiagnostic(body)
	if err != nil {
		return nil, badRequest(err)
	}
	response, err := ask.Diagnose(s.Snapshot(), q)
	return response, badRequest(err)
})

// decodeDiagnostic reads a question strictly.
func decodeDiagnostic(r io.Reader) (*azure.NetworkConfigurationDiagnosticParameters, error) {
	q := &azure.NetworkConfigurationDiagnosticParameters{}
	decoder := json.NewDecoder(io.LimitReader(r, maxDiagnosticLen))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(q); err != nil {
		return nil, fmt.Errorf("not a question of NSG diagnostics: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not a question of NSG diagnostics: more than one JSON value")
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
