package intercept

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// probeEvery is how often guests without a known MAC are asked for it.
const probeEvery = 2 * time.Second

// Watch follows the interfaces of ports until ctx ends: one that comes, also again, is attached before its first
// packet, and a guest whose interface went down may have another MAC. tell gets what went wrong.
func (i *Interceptor) Watch(ctx context.Context, tell func(error)) error {
	kick := make(chan struct{}, 1)
	searching, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		i.follow(searching, kick, tell)
	}()
	defer func() { stop(); <-ended }()
	for ctx.Err() == nil {
		err := i.watch(ctx, kick, tell)
		if errors.Is(err, errGone) {
			i.mend(tell)
			<-ctx.Done() // nothing is to be seen
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// watch follows the interfaces until ctx ends or the kernel has lost messages, as it does when many interfaces change
// at once. What it opened for that is closed afterwards.
func (i *Interceptor) watch(ctx context.Context, kick chan<- struct{}, tell func(error)) error {
	done := make(chan struct{})
	defer close(done)
	var changes <-chan linkChange
	var failed <-chan error
	err := i.do(func() (err error) {
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
				tell(fmt.Errorf("intercept: follow interfaces: %w", <-failed))
				return nil
			}
			i.changed(&u, tell)
			select {
			case kick <- struct{}{}:
			default:
			}
		case <-tick.C:
			i.mend(tell)
			if err := i.Probe(); err != nil {
				tell(err)
			}
		}
	}
}

// ErrMended tells what Watch has mended by itself.
var ErrMended = errors.New("somebody changed nsgd's filters, and it may have been open: they are back")

// mend attaches again where somebody has taken filters away or put others in their place: such a port may be open.
func (i *Interceptor) mend(tell func(error)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil || i.gone || i.unsure() {
		return
	}
	if err := i.do(func() error { return nil }); err != nil {
		i.gone = errors.Is(err, errGone)
		tell(fmt.Errorf("intercept: namespace %q: %w", i.namespace, err))
		return
	}
	if err := i.shutAgain(); errors.Is(err, ErrMended) {
		tell(fmt.Errorf("intercept: %w", err))
	} else {
		i.say(ofTables, err, tell)
	}
	for n := range i.ports {
		p := &i.ports[n]
		l, err := i.link(p)
		if err != nil || i.filtering(p, l) {
			continue
		}
		known := i.indexes[p.String()] == l.Attrs().Index // else it has just come
		err = i.apply(i.ports, i.rests)
		i.say("", err, tell)
		if err == nil && known {
			tell(&Trouble{p.String(), ErrMended})
		}
	}
	i.review(tell)
}

// changed does what a message asks for; nil: look at every port.
func (i *Interceptor) changed(u *linkChange, tell func(error)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil || i.unsure() {
		return
	}
	stale := u == nil
	for n := range i.ports {
		p := &i.ports[n]
		if u == nil {
			continue
		}
		if p.Interface == "" {
			stale = i.lost(p, u, tell) || stale
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
		default:
			i.down(p, u, tell)
		}
	}
	if !stale {
		return
	}
	i.say("", i.apply(i.ports, i.rests), tell)
	i.review(tell)
}

// unsure tells that an earlier run has left interfaces closed, and Apply has not said which of them are wanted: they
// stay as they are. mu is held.
func (i *Interceptor) unsure() bool { return i.adopted && !i.applied }

// down forgets a guest's MAC when its interface goes down.
func (i *Interceptor) down(p *Port, u *linkChange, tell func(error)) {
	if p.Host || isUp(u.Link) {
		return
	}
	if err := i.forget(uint32(u.Attrs().Index)); err != nil {
		tell(fmt.Errorf("intercept: interface %q: forget the guest's MAC: %w", p, err))
	}
}

// lost tells that a message is about the interface of a port without a name, which is no longer where it was.
func (i *Interceptor) lost(p *Port, u *linkChange, tell func(error)) bool {
	if index, known := i.found[p.Guest]; !known || index != u.Attrs().Index {
		return false
	}
	if _, err := i.link(p); err == nil {
		i.down(p, u, tell)
		return false
	}
	if _, err := i.handle.LinkByIndex(u.Attrs().Index); err != nil {
		delete(i.names, u.Attrs().Index)
	}
	delete(i.found, p.Guest)
	delete(i.indexes, p.Guest)
	return true
}
