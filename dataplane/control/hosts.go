package control

import (
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

// EachHost asks every host of the daemon's cluster, some at a time; the daemon's own by this client. ask is called
// beside itself, with a client that ends with the call. A host's context ends after HostPatience, unless answering is called
// before. faults name those that have not answered.
func (c *Client) EachHost(ctx context.Context, files serve.MutualFiles, most int, ask func(ctx context.Context, host string, c *Client, answering func()) error) (faults []HostFault, err error) {
	known, err := c.askHosts(ctx)
	if err != nil {
		return nil, err
	}
	if most > 0 && len(known.Hosts) > most {
		return nil, fmt.Errorf("the cluster has %d hosts: at most %d are asked at once: ask some of them", len(known.Hosts), most)
	}
	var group errgroup.Group
	group.SetLimit(max(most, maxAsked))
	var mu sync.Mutex
	for _, h := range known.Hosts {
		group.Go(func() error {
			client, err := c, error(nil)
			if h.Name != known.Host {
				client, err = hostClient(&h, files)
			}
			if err == nil {
				err = client.askHost(ctx, h.Name, client != c, ask)
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

// askHosts is Hosts within HostPatience.
func (c *Client) askHosts(ctx context.Context) (*inspect.ClusterHosts, error) {
	ctx, cancel := context.WithTimeout(ctx, HostPatience)
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

// askHost asks one host, once it has said that it is that one.
func (c *Client) askHost(ctx context.Context, name string, other bool, ask func(context.Context, string, *Client, func()) error) error {
	errLate := fmt.Errorf("no answer within %v", HostPatience)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(HostPatience, func() { cancel(errLate) })
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
