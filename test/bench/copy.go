package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"sync"

	"github.com/nsgd/nsgd/tun"
)

// copyCommand makes this program the bare copy. It ends with an interrupt.
const copyCommand = "copy-packets"

// The bare copy reads and writes in groups as nsgd's workers do: so many packets of one queue
// before it looks at the next, and so many, in as much memory, before it writes the first.
const (
	copyBurst      = 64
	copyGroup      = 16
	copyGroupBytes = 32 << 10
)

// copyPackets carries packets between two TUN devices as nsgd does, and asks nothing of them
// but their destination: what is left is what the devices cost.
func copyPackets() error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	state, err := tun.OpenState(stateDir)
	if err != nil {
		return err
	}
	defer state.Close()
	workers := runtime.GOMAXPROCS(0)
	var devices []tun.Device
	defer func() {
		for _, d := range devices {
			d.Close()
		}
	}()
	for _, end := range []struct{ namespace, address string }{{clientNamespace, clientAddress}, {serverNamespace, serverAddress}} {
		d, level, err := tun.Open(tun.Config{
			Name: "eth0", Namespace: end.namespace, CreateNamespace: true, State: state, Loopback: true, Queues: workers,
			Addresses: []netip.Prefix{netip.MustParsePrefix(end.address + "/24")},
			Routes:    []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
		})
		if err != nil {
			return err
		}
		fmt.Println("offload", level)
		devices = append(devices, d)
	}
	return copyUntil(ctx, devices, workers)
}

// copyUntil runs the workers until ctx ends or one of them fails.
func copyUntil(ctx context.Context, devices []tun.Device, workers int) error {
	var wait sync.WaitGroup
	var pollers []*tun.Poller
	defer func() {
		for _, p := range pollers {
			p.Close()
		}
		wait.Wait()
	}()
	failed := make(chan error, workers)
	for i := range workers {
		queues := []tun.Queue{devices[0].Queues()[i], devices[1].Queues()[i]}
		poller, err := tun.NewPoller()
		if err != nil {
			return err
		}
		pollers = append(pollers, poller)
		for i, q := range queues {
			if err := poller.Add(i, q, nil); err != nil {
				return err
			}
		}
		c := &copier{queues: queues, server: netip.MustParseAddr(serverAddress).As4()}
		wait.Go(func() { failed <- c.run(poller) })
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// copier is one worker.
type copier struct {
	queues []tun.Queue // the client's and the server's
	server [4]byte
	buffer [copyGroupBytes + tun.BufferLen]byte
	group  [copyGroup][]byte
}

func (c *copier) run(poller *tun.Poller) error {
	ready := make([]int, 0, len(c.queues))
	for {
		var err error
		if ready, _, err = poller.Wait(-1, ready, nil); err != nil {
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			return err
		}
		for _, from := range ready {
			for left := copyBurst; left > 0; {
				n, err := c.read(c.queues[from], min(left, copyGroup))
				left -= n
				for _, frame := range c.group[:n] {
					c.write(frame)
				}
				if errors.Is(err, tun.ErrAgain) {
					break
				}
				if err != nil {
					return err
				}
			}
		}
	}
}

// read fills the first slots of the group with up to most packets.
func (c *copier) read(queue tun.Queue, most int) (n int, err error) {
	for used := 0; n < most && used <= copyGroupBytes; n++ {
		length, err := queue.Read(c.buffer[used : used+tun.BufferLen])
		if err != nil {
			return n, err
		}
		c.group[n] = c.buffer[used : used+length]
		used += length
	}
	return n, nil
}

// write sends a packet to the queue that leads to its destination. What has no room, or is
// refused, is lost, as it is on a wire.
func (c *copier) write(frame []byte) {
	if len(frame) < tun.HeaderLen+20 || frame[tun.HeaderLen]>>4 != 4 {
		return
	}
	to := c.queues[0]
	if [4]byte(frame[tun.HeaderLen+16:]) == c.server {
		to = c.queues[1]
	}
	to.Write(frame)
}
