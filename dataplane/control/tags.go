package control

import (
	"context"
	"net/url"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// GET /v1/tags lists the tags that rules can name. It has no query.
var tagsRoute = get("tags", func(s *inspect.Service, _ url.Values) (*inspect.TagList, error) {
	return s.Tags(), nil
})

// Tags lists the tags of the running policy.
func (c *Client) Tags(ctx context.Context) (*inspect.TagList, error) {
	return tagsRoute.ask(ctx, c, nil, nil)
}

// GET /v1/tag says what a tag stands for. VirtualNetwork and Internet stand for something else
// in each subnet, so the query must name one:
//
//	name              of the tag, in any case
//	subnet            by name, network/name or id
//	networkInterface  by name or id, for its subnet
var tagRoute = get("tag", func(s *inspect.Service, v url.Values) (*inspect.TagDetails, error) {
	q := inspect.TagQuestion{Name: v.Get("name"), Subnet: v.Get("subnet"), NetworkInterface: v.Get("networkInterface")}
	if err := q.Check(); err != nil {
		return nil, badRequest(err)
	}
	tag, err := s.Tag(q)
	return tag, notFound(err)
})

// Tag asks what a tag stands for.
func (c *Client) Tag(ctx context.Context, q inspect.TagQuestion) (*inspect.TagDetails, error) {
	return tagRoute.ask(ctx, c, url.Values{
		"name": {q.Name}, "subnet": {q.Subnet}, "networkInterface": {q.NetworkInterface},
	}, nil)
}
