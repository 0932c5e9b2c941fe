package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/serve"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// GET /v1/rules lists rules: those of the networkSecurityGroup, by name or id, or all. With
// unused=true it lists only rules that decided nothing and carry no flow's packets. With since=10m it counts that time alone.
var rulesRoute = endpoint[*inspect.RuleList]{http.MethodGet, addRoute("rules", look, answerRules, http.MethodGet)}

func answerRules(s *Server, w http.ResponseWriter, r *http.Request) {
	list, err := askedRules(s.service, r.URL.Query())
	if err != nil {
		refuse(w, err)
		return
	}
	serve.Hold(w)
	w.Header().Set("Content-Type", "application/json")
	if writeRules(w, list) != nil {
		panic(http.ErrAbortHandler) // the client went away, or must not take this for the whole
	}
}

func askedRules(s *inspect.Service, q url.Values) (*inspect.RuleStream, error) {
	unused, err := parseFlag(q, "unused")
	if err != nil {
		return nil, err
	}
	since, err := parseSince(q)
	if err != nil {
		return nil, err
	}
	list, err := s.Rules(inspect.RuleFilter{NetworkSecurityGroup: q.Get("networkSecurityGroup"), Unused: unused, Since: since})
	return list, notFound(err)
}

// rulesBuffer is how many bytes of rules are in memory before they are written.
const rulesBuffer = 64 << 10

// writeRules writes the JSON of a RuleList. A million rules take 500 MB, and nobody needs them at once.
func writeRules(w io.Writer, list *inspect.RuleStream) error {
	const begin = `"rules":[`
	frame, err := json.Marshal(&list.RuleList)
	head, tail, _ := bytes.Cut(frame, []byte(begin))
	b := bufio.NewWriterSize(w, rulesBuffer)
	b.Write(head)
	b.WriteString(begin)
	encoder, between := json.NewEncoder(b), ""
	list.Each(func(r *inspect.Rule) bool {
		b.WriteString(between)
		between = ","
		err = errors.Join(err, encoder.Encode(r))
		return err == nil
	})
	b.Write(tail)
	return errors.Join(err, b.Flush())
}

// Rules lists the rules of the running policy with their counters.
func (c *Client) Rules(ctx context.Context, filter inspect.RuleFilter) (*inspect.RuleList, error) {
	return rulesRoute.ask(ctx, c, url.Values{
		"networkSecurityGroup": {filter.NetworkSecurityGroup}, "unused": {strconv.FormatBool(filter.Unused)},
		"since": {filter.Since.String()},
	}, nil)
}

// GET /v1/effective lists the rules that hold for the networkInterface, by name or id.
var effectiveRoute = get("effective", func(s *inspect.Service, q url.Values) (*azure.EffectiveNetworkSecurityGroupListResult, error) {
	result, err := ask.Effective(s.Snapshot(), q.Get("networkInterface"))
	return result, notFound(err)
})

// Effective lists the rules that hold for a NIC, by name or id.
func (c *Client) Effective(ctx context.Context, networkInterface string) (*azure.EffectiveNetworkSecurityGroupListResult, error) {
	return effectiveRoute.ask(ctx, c, url.Values{"networkInterface": {networkInterface}}, nil)
}

// GET /v1/effectiveRoutes lists the routes of the networkInterface, by name or id.
var effectiveRoutesRoute = get("effectiveRoutes", func(s *inspect.Service, q url.Values) (*azure.EffectiveRouteListResult, error) {
	snapshot, err := s.Asked()
	if err != nil {
		return nil, err
	}
	result, err := ask.EffectiveRoutes(snapshot, q.Get("networkInterface"))
	return result, notFound(err)
})

// EffectiveRoutes lists the routes of a NIC, by name or id.
func (c *Client) EffectiveRoutes(ctx context.Context, networkInterface string) (*azure.EffectiveRouteListResult, error) {
	return effectiveRoutesRoute.ask(ctx, c, url.Values{"networkInterface": {networkInterface}}, nil)
}

// GET /v1/securityGroupView shows the rules of the target, a NIC or a virtual machine.
var groupViewRoute = get("securityGroupView", func(s *inspect.Service, q url.Values) (*azure.SecurityGroupViewResult, error) {
	result, err := ask.SecurityGroupView(s.Snapshot(), q.Get("target"))
	return result, notFound(err)
})

// SecurityGroupView asks for the rules of a NIC or virtual machine, by name or id.
func (c *Client) SecurityGroupView(ctx context.Context, target string) (*azure.SecurityGroupViewResult, error) {
	return groupViewRoute.ask(ctx, c, url.Values{"target": {target}}, nil)
}

// GET /v1/names lists the names of the policy's resources. It has no query.
var namesRoute = get("names", func(s *inspect.Service, _ url.Values) (*inspect.Names, error) {
	return s.Names(), nil
})

// Names lists the names in the running policy, for completions.
func (c *Client) Names(ctx context.Context) (*inspect.Names, error) {
	return namesRoute.ask(ctx, c, nil, nil)
}
