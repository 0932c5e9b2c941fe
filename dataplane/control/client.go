package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/nsgd/nsgd/ruleset/azure"
)

// ErrNoDaemon is wrapped by every error of a Client that found nobody on the socket.
var ErrNoDaemon = errors.New("no daemon answers")

// Client asks a running daemon. Safe for concurrent use.
type Client struct {
	socket string
	http   http.Client
}

var _ Answerer = (*Client)(nil)

// NewClient returns a client for the daemon on that socket; it connects when it is asked
// something.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, fmt.Errorf("%w on %s: %w", ErrNoDaemon, socket, err)
		}
		return conn, nil
	}
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for the daemon's status.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return query[Status](ctx, c, http.MethodGet, "status", nil)
}

// Reload tells the daemon to read its policy files again. An *Error lists the faults
// for which it refused.
func (c *Client) Reload(ctx context.Context) (*Reloaded, error) {
	return query[Reloaded](ctx, c, http.MethodPost, "reload", nil)
}

// Effective lists the rules that hold for a NIC.
func (c *Client) Effective(ctx context.Context, networkInterface string) (*azure.EffectiveNetworkSecurityGroupListResult, error) {
	return query[azure.EffectiveNetworkSecurityGroupListResult](ctx, c, http.MethodGet, "effective", url.Values{"networkInterface": {networkInterface}})
}

// Rules lists the rules of the running policy with their counters.
func (c *Client) Rules(ctx context.Context, filter RuleFilter) (*RuleList, error) {
	return query[RuleList](ctx, c, http.MethodGet, "rules", url.Values{
		"networkSecurityGroup": {filter.NetworkSecurityGroup}, "unused": {strconv.FormatBool(filter.Unused)},
	})
}

// Flows lists live flows.
func (c *Client) Flows(ctx context.Context, filter FlowFilter) (*FlowList, error) {
	return query[FlowList](ctx, c, http.MethodGet, "flows", url.Values{
		"networkInterface": {filter.NetworkInterface}, "address": {filter.Address}, "protocol": {filter.Protocol},
		"limit": {strconv.Itoa(filter.Limit)},
	})
}

// Verify sends requests while it receives results.
func (c *Client) Verify(ctx context.Context, path bool, requests io.Reader, results io.Writer) error {
	// NopCloser hides a file's length and Close: the transport must do neither.
	response, err := c.do(ctx, http.MethodPost, "verify", url.Values{"path": {strconv.FormatBool(path)}}, io.NopCloser(requests))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(results, response.Body); err != nil {
		return fmt.Errorf("control: verify: %w", err)
	}
	return nil
}

// Diagnose asks for NSG diagnostics.
func (c *Client) Diagnose(ctx context.Context, q *azure.NetworkConfigurationDiagnosticParameters) (*azure.NetworkConfigurationDiagnosticResponse, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	return tell[azure.NetworkConfigurationDiagnosticResponse](ctx, c, http.MethodPost, "diagnose", nil, bytes.NewReader(body))
}

// SecurityGroupView asks for the rules of a NIC or virtual machine.
func (c *Client) SecurityGroupView(ctx context.Context, target string) (*azure.SecurityGroupViewResult, error) {
	return query[azure.SecurityGroupViewResult](ctx, c, http.MethodGet, "securityGroupView", url.Values{"target": {target}})
}

// Tags lists the tags of the running policy.
func (c *Client) Tags(ctx context.Context) (*TagList, error) {
	return query[TagList](ctx, c, http.MethodGet, "tags", nil)
}

// Tag asks what a tag stands for.
func (c *Client) Tag(ctx context.Context, q TagQuestion) (*TagDetails, error) {
	return query[TagDetails](ctx, c, http.MethodGet, "tag", url.Values{
		"name": {q.Name}, "subnet": {q.Subnet}, "networkInterface": {q.NetworkInterface},
	})
}

func query[T any](ctx context.Context, c *Client, method, what string, query url.Values) (*T, error) {
	return tell[T](ctx, c, method, what, query, nil)
}

// tell is ask with a body.
func tell[T any](ctx context.Context, c *Client, method, what string, query url.Values, body io.Reader) (*T, error) {
	response, err := c.do(ctx, method, what, query, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	result := new(T)
	if err := json.NewDecoder(response.Body).Decode(result); err != nil {
		return nil, fmt.Errorf("control: %s: answer of the daemon: %w", what, err)
	}
	return result, nil
}

// do asks and turns a refusal into an *Error.
func (c *Client) do(ctx context.Context, method, what string, query url.Values, body io.Reader) (*http.Response, error) {
	target := url.URL{Scheme: "http", Host: "nsgd", Path: "/v1/" + what, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("control: %s: %w", what, err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		var where *url.Error // names only the made-up URL
		if errors.As(err, &where) {
			err = where.Err
		}
		return nil, fmt.Errorf("control: %s: %w", what, err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	refusal := &Error{Status: response.StatusCode}
	if err == nil && (json.Unmarshal(text, refusal) != nil || refusal.Message == "") {
		refusal.Message = response.Status + ": " + string(bytes.TrimSpace(text))
	}
	return nil, errors.Join(refusal, err)
}
