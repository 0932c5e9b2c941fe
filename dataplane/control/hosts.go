package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/serve"
	"golang.org/x/sync/errgroup"
)

const (
	// HostPatience bounds the answer of each host, its connection included.
	HostPatience = 10 * time.Second
	// maxAsked bounds the hosts that are asked at a time.
	maxAsked = 16
	// maxHostAnswer bounds what is read of one host's answer, in bytes.
	maxHostAnswer = 64 << 20
	// maxHostFault bounds what is told of a host that does not answer, in bytes.
	maxHostFault = 500
)

// GET /v1/hosts lists the hosts of the cluster.
var hostsRoute = get("hosts", func(s *inspect.Service, _ url.Values) (*inspect.ClusterHosts, error) {
	list, err := s.Hosts()
	return list, notFound(err)
})

// Hosts lists the hosts of the daemon's cluster.
func (c *Client) Hosts(ctx context.Context) (*inspect.ClusterHosts, error) {
	return hostsRoute.ask(ctx, c, nil, nil)
}

// HostFault is why a host of a cluster has not answered.
type HostFault struct {
	Host  string `json:"host"`
	Fault string `json:"fault"`
}

// EachHost is how every host of a cluster is asked.
type EachHost struct {
	// Files are the certificates of whoever asks.
	Files serve.MutualFiles
	// Patience bounds the answer of each host; 0: HostPatience.
	Patience time.Duration
	// AtOnce asks all at once, and refuses more hosts than these; 0: some at a time, however many there are.
	AtOnce int
}

// Ask asks every host of a daemon's cluster; the daemon itself by its client. ask is called beside itself, with a client
// that ends with the call. Its context ends after the patience, unless answering is called before. faults name the hosts
// that have not answered.
func (e EachHost) Ask(ctx context.Context, c *Client, ask func(ctx context.Context, host string, c *Client, answering func()) error) (faults []HostFault, err error) {
	e.Patience = cmp.Or(e.Patience, HostPatience)
	known, err := e.hosts(ctx, c)
	if err != nil {
		return nil, err
	}
	if e.AtOnce > 0 && len(known.Hosts) > e.AtOnce {
		return nil, fmt.Errorf("the cluster has %d hosts: at most %d are asked at once: ask some of them", len(known.Hosts), e.AtOnce)
	}
	var group errgroup.Group
	group.SetLimit(max(e.AtOnce, maxAsked))
	var mu sync.Mutex
	for _, h := range known.Hosts {
		group.Go(func() error {
			client, err := c, error(nil)
			if h.Name != known.Host {
				client, err = hostClient(&h, e.Files)
			}
			if err == nil {
				err = e.one(ctx, client, h.Name, client != c, ask)
			}
			if client != c && client != nil {
				client.Close()
			}
			if err != nil && ctx.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				faults = append(faults, HostFault{h.Name, bounded(err)})
			}
			return nil
		})
	}
	group.Wait()
	return faults, ctx.Err()
}

// hosts is Client.Hosts within the patience.
func (e EachHost) hosts(ctx context.Context, c *Client) (*inspect.ClusterHosts, error) {
	ctx, cancel := context.WithTimeout(ctx, e.Patience)
	defer cancel()
	return c.Hosts(ctx)
}

// hostClient is a client for a host that a record names. The record may say anything.
func hostClient(h *inspect.ClusterHost, files serve.MutualFiles) (*Client, error) {
	if h.Control == "" {
		return nil, errors.New("its configuration has no control.listen")
	}
	if a, err := netip.ParseAddrPort(h.Control); err != nil || a.Port() == 0 {
		return nil, fmt.Errorf("%q is not ADDRESS:PORT of its control.listen", h.Control)
	}
	client := NewRemoteClient(h.Control, files)
	client.most = maxHostAnswer
	return client, nil
}

// one asks one host, once it has said that it is that one.
func (e EachHost) one(ctx context.Context, c *Client, name string, other bool, ask func(context.Context, string, *Client, func()) error) error {
	errLate := fmt.Errorf("no answer within %v", e.Patience)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(e.Patience, func() { cancel(errLate) })
	defer late.Stop()
	if other {
		said, err := c.Hosts(ctx)
		switch {
		case errors.Is(context.Cause(ctx), errLate):
			return errLate
		case err != nil:
			return err
		case said.Host != name:
			return fmt.Errorf("host %q answers there", said.Host)
		}
	}
	err := ask(ctx, name, c, func() { late.Stop() })
	if errors.Is(context.Cause(ctx), errLate) {
		return errLate
	}
	return err
}

// bounded is the text of an error that another host may have written.
func bounded(err error) string {
	text := err.Error()
	if len(text) > maxHostFault {
		text = text[:maxHostFault] + "..."
	}
	return text
}
