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

// copyBurst is how many packets a worker of the bare copy takes from one queue before it looks at
// the next, as nsgd's does.
const copyBurst = 64

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
		poller, err := tun.NewPoller(queues)
		if err != nil {
			return err
		}
		pollers = append(pollers, poller)
		wait.Go(func() { failed <- copyQueues(poller, queues) })
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// copyQueues is one worker: it reads every queue and writes to the one that leads to the
// packet's destination.
func copyQueues(poller *tun.Poller, queues []tun.Queue) error {
	server := netip.MustParseAddr(serverAddress).As4()
	buffer := make([]byte, tun.BufferLen)
	ready := make([]int, 0, len(queues))
	for {
		var err error
		if ready, err = poller.Wait(-1, ready); err != nil {
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			return err
		}
		for _, from := range ready {
			for range copyBurst {
				n, err := queues[from].Read(buffer)
				if errors.Is(err, tun.ErrAgain) {
					break
				}
				if err != nil {
					return err
				}
				if n < tun.HeaderLen+20 || buffer[tun.HeaderLen]>>4 != 4 {
					continue
				}
				to := queues[0]
				if [4]byte(buffer[tun.HeaderLen+16:]) == server {
					to = queues[1]
				}
				// What has no room, or is refused, is lost, as it is on a wire.
				if err := to.Write(buffer[:n]); errors.Is(err, os.ErrClosed) {
					return err
				}
			}
		}
	}
}
