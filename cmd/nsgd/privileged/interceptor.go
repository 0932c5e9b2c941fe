package privileged

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"sync"
	"time"

	"github.com/nsgd/nsgd/tun/intercept"
)

// Interceptor is an intercept.Interceptor that the privileged part has. Safe for concurrent use.
type Interceptor struct {
	client    *Client
	namespace string
	adopted   bool
	watched   sync.Once
}

// Intercept is intercept.Open.
func (c *Client) Intercept(namespace string) (*Interceptor, error) {
	i := &Interceptor{client: c, namespace: namespace}
	if err := c.call("Intercept", namespace, &i.adopted); err != nil {
		return nil, err
	}
	return i, nil
}

// Detach opens the interfaces of a namespace and removes nsgd's devices there.
func (c *Client) Detach(namespace string) error { return c.call("Detach", namespace, &None{}) }

// FollowInterfaces tells of what goes on at the interfaces of all namespaces, until ctx ends or they can't be followed.
func (c *Client) FollowInterfaces(ctx context.Context, tell func(Event)) error {
	for {
		var list []Event
		select {
		case <-ctx.Done():
			return nil
		case done := <-c.rpc.Go(service+"Events", None{}, &list, make(chan *rpc.Call, 1)).Done:
			if done.Error != nil {
				return fmt.Errorf("%w: %w", ErrGone, done.Error)
			}
		}
		for _, e := range list {
			if e.Fatal {
				return errors.New(e.Text)
			}
			tell(e)
		}
	}
}

// Adopted is intercept's.
func (i *Interceptor) Adopted() bool { return i.adopted }

// Check is intercept's.
func (i *Interceptor) Check(ports []Port) (mtu int, err error) {
	err = i.client.call("Check", Arrangement{Namespace: i.namespace, Ports: ports}, &mtu)
	return mtu, err
}

// Guard is intercept's.
func (i *Interceptor) Guard(ports []Port) error {
	return i.client.call("Guard", Arrangement{Namespace: i.namespace, Ports: ports}, &None{})
}

// Apply is intercept's.
func (i *Interceptor) Apply(ports []Port, rests []intercept.Rest) error {
	return i.client.call("Apply", Arrangement{i.namespace, ports, rests}, &None{})
}

// Again is intercept's.
func (i *Interceptor) Again() error { return i.client.call("Again", i.namespace, &None{}) }

// OpenAfter is intercept's.
func (i *Interceptor) OpenAfter(d time.Duration) error {
	return i.client.call("OpenAfter", Opening{i.namespace, d}, &None{})
}

// Probe is intercept's.
func (i *Interceptor) Probe() error { return i.client.call("AskGuests", i.namespace, &None{}) }

// Watch has events told to FollowInterfaces from its first call on. Call it when something was applied.
func (i *Interceptor) Watch() (err error) {
	i.watched.Do(func() { err = i.client.call("Watch", i.namespace, &None{}) })
	return err
}

// Statuses is intercept's; none when the privileged part has ended.
func (i *Interceptor) Statuses() (list []intercept.Status) {
	if i.client.call("Statuses", i.namespace, &list) != nil {
		return nil
	}
	return list
}

// MAC is intercept's.
func (i *Interceptor) MAC(device string) (mac net.HardwareAddr) {
	if i.client.call("MAC", Behind{i.namespace, device}, &mac) != nil {
		return nil
	}
	return mac
}

// Close is intercept's.
func (i *Interceptor) Close() error { return i.client.call("Leave", i.namespace, &None{}) }
