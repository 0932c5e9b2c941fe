package intercept

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nsgd/nsgd/tun"
)

// probeEvery is how often guests without a known MAC are asked for it.
const probeEvery = 2 * time.Second

// Watch follows the interfaces of ports until ctx ends: one that comes, also again, is attached before its first
// packet, and a guest whose interface went down may have another MAC. tell gets what went wrong.
func (i *Interceptor) Watch(ctx context.Context, tell func(error)) error {
	done := make(chan struct{})
	defer close(done)
	var changes <-chan linkChange
	var failed <-chan error
	err := tun.Do(i.namespace, func() (err error) {
		changes, failed, err = followLinks(done)
		return err
	})
	if err != nil {
		return fmt.Errorf("intercept: follow interfaces: %w", err)
	}
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	i.changed(nil, tell) // what came before the subscription
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, open := <-changes:
			if !open {
				return i.again(ctx, failed, tell)
			}
			i.changed(&u, tell)
		case <-tick.C:
			i.mend(tell)
			if err := i.Probe(); err != nil {
				tell(err)
			}
		}
	}
}

// again watches anew when the kernel has lost messages, as it does when many interfaces change at once.
func (i *Interceptor) again(ctx context.Context, failed <-chan error, tell func(error)) error {
	select {
	case err := <-failed:
		tell(fmt.Errorf("intercept: follow interfaces: %w", err))
	default:
	}
	if ctx.Err() != nil {
		return nil
	}
	return i.Watch(ctx, tell)
}

// ErrMended tells what Watch has mended by itself.
var ErrMended = errors.New("somebody changed nsgd's filters, and it may have been open: they are back")

// mend attaches again where somebody has taken filters away or put others in their place: such a port may be open.
func (i *Interceptor) mend(tell func(error)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return
	}
	for n := range i.ports {
		p := &i.ports[n]
		l, err := i.handle.LinkByName(p.Interface)
		if err != nil || i.filtering(p, l) {
			continue
		}
		known := i.indexes[p.Interface] == l.Attrs().Index // else it has just come
		err = i.apply(i.ports, i.rests)
		i.say("", err, tell)
		if err == nil && known {
			tell(&Trouble{p.Interface, ErrMended})
		}
	}
	i.review(tell)
}

// changed does what a message asks for; nil: look at every port.
func (i *Interceptor) changed(u *linkChange, tell func(error)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return
	}
	stale := u == nil
	for n := range i.ports {
		p := &i.ports[n]
		if u == nil {
			continue
		}
		if u.Attrs().Name != p.Interface {
			if !u.gone && i.indexes[p.Interface] == u.Attrs().Index {
				delete(i.indexes, p.Interface)
				stale = true
			}
			continue
		}
		switch index := u.Attrs().Index; {
		case u.gone:
			delete(i.indexes, p.Interface)
			i.moved[p.Interface] = u.moved
			stale = true
		case i.indexes[p.Interface] != index:
			stale = true
		case !p.Host && !isUp(u.Link):
			if err := i.forget(uint32(index)); err != nil {
				tell(fmt.Errorf("intercept: interface %q: forget the guest's MAC: %w", p.Interface, err))
			}
		}
	}
	if !stale {
		return
	}
	i.say("", i.apply(i.ports, i.rests), tell)
	i.review(tell)
}
