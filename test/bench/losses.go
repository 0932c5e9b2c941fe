package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// before and after are how long packets flow before something happens, and once it is over.
const before, after = time.Second, 2 * time.Second

// loss is a row: something happens, and then everything is as before, or another host has vm3.
type loss struct {
	name string
	// moves says that vm3 is at another host in the end: its connections end with it.
	moves, goOn bool
	// shared says that vm3 stays one machine, whichever host has it; iperf adds a stream of iperf3 each way, and tells of these.
	shared, iperf bool
	do            func(c *clusterRig, holder, standby *clusterHost) error
}

// losses are the rows, in this order.
var losses = []loss{
	{name: "nothing happens", do: func(*clusterRig, *clusterHost, *clusterHost) error { time.Sleep(time.Second); return nil }},
	{name: "etcd SIGKILLed, back within the lease", do: func(c *clusterRig, _, _ *clusterHost) error {
		return errors.Join(c.killEtcd(false), wait(c.lease/4), c.startEtcd())
	}},
	{name: "a host cut off from etcd for half its lease", do: func(c *clusterRig, holder, _ *clusterHost) error {
		return errors.Join(holder.cut(true), wait(c.lease/2), holder.cut(false))
	}},
	{name: "etcd emptied", do: func(c *clusterRig, _, _ *clusterHost) error {
		return errors.Join(c.killEtcd(true), c.startEtcd())
	}},
	{name: "etcd cut off from all for twice the lease", do: partition},
	{name: "the same with onLost: goOn", goOn: true, do: partition},
	{name: "nsgd SIGKILLed, the next one follows", do: func(_ *clusterRig, holder, _ *clusterHost) error {
		_, _, pid := holder.status()
		if pid == 0 {
			return errors.New("the host does not answer")
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return err
		}
		return poll(clusterPatience, func() error {
			if carries, _, now := holder.status(); now == pid || !carries {
				return errors.New("no other process carries")
			}
			return nil
		})
	}},
	{name: "a host SIGKILLed, another one takes over", moves: true, do: func(_ *clusterRig, holder, standby *clusterHost) error {
		return errors.Join(holder.die(), standby.takesOver())
	}},
	{name: "a host stopped past its lease, and continued", moves: true, do: func(_ *clusterRig, holder, standby *clusterHost) error {
		return errors.Join(holder.signal(syscall.SIGSTOP), standby.takesOver(), holder.signal(syscall.SIGCONT))
	}},
	{name: "vm3 moves to another host, and back", shared: true, do: thereAndBack},
	{name: "the same under an iperf3 stream of 100 Mbit/s each way", shared: true, iperf: true, do: thereAndBack},
}

func thereAndBack(c *clusterRig, holder, standby *clusterHost) error {
	return errors.Join(c.move(holder, standby), wait(after), c.move(standby, holder))
}

func wait(d time.Duration) error { time.Sleep(d); return nil }

func partition(c *clusterRig, _, _ *clusterHost) error {
	return errors.Join(command("ip", "link", "set", "ul0", "down"), wait(2*c.lease), command("ip", "link", "set", "ul0", "up"))
}

// cut cuts a host off from etcd, and from nothing else.
func (h *clusterHost) cut(off bool) error {
	verb := "del"
	if off {
		verb = "add"
	}
	return command("ip", "-n", h.name, "route", verb, "blackhole", etcdAddress+"/32")
}

func (h *clusterHost) takesOver() error {
	return poll(clusterPatience, func() error {
		if carries, _, _ := h.status(); !carries {
			return fmt.Errorf("%s has nothing", h.name)
		}
		return nil
	})
}

// runLosses prints what is lost when something happens to a cluster.
func runLosses(binary string, o clusterOptions) error {
	if err := privateWorld(); err != nil {
		return err
	}
	c, err := newClusterRig(binary, o.lease)
	if err != nil {
		return err
	}
	defer c.end()
	for _, h := range c.hosts {
		if err := c.start(h); err != nil {
			return err
		}
	}
	if err := errors.Join(c.apply(0), c.whole(true)); err != nil {
		return err
	}
	fmt.Printf("lease %v; %d datagrams a second and a TCP stream of %d MB/s each way; each row %d times\n", o.lease, o.rate, pipeRate>>20, o.losses)
	fmt.Println("| what happens | datagrams lost, vm1 to vm3 | vm3 to vm1 | longest silence, ms | TCP: longest silence, ms | connections ended | wrong verdicts | from two holders |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for i := range losses {
		if !strings.Contains(losses[i].name, o.row) {
			continue
		}
		if err := c.lose(&losses[i], o); err != nil {
			return fmt.Errorf("%s: %w", losses[i].name, err)
		}
	}
	return nil
}

func (c *clusterRig) end() {
	for _, h := range c.hosts {
		h.end()
	}
	c.etcd.stop()
}

// lose makes a row.
func (c *clusterRig) lose(l *loss, o clusterOptions) error {
	if l.goOn != c.goOn || l.shared != c.shared {
		c.goOn = l.goOn
		c.share(l.shared)
		for _, h := range c.hosts {
			h.end()
		}
	}
	var sums [2][]string
	var silences, stalls, megabytes, again []float64
	ended, wrong, doubled := 0, uint64(0), uint64(0)
	for n := range o.losses {
		if err := c.whole(l.moves || l.shared); err != nil {
			return err
		}
		if l.name == "etcd emptied" || n == 0 {
			if err := c.apply(int(time.Now().UnixNano())); err != nil { // also after etcd was emptied
				return err
			}
		}
		holder, standby, err := c.holder()
		if err != nil {
			return err
		}
		t, err := newTraffic(c, holder, o.rate)
		if err != nil {
			return err
		}
		var streams *iperfStreams
		if l.iperf {
			if streams, err = startIperf(c.hosts[0].guest, holder.guest); err != nil {
				streams.stop()
				return err
			}
		}
		time.Sleep(before)
		err = l.do(c, holder, standby)
		if err == nil {
			err = c.flowsAgain(t)
		}
		time.Sleep(after)
		if err == nil && !l.moves {
			t.awaitPipes()
		}
		var stream streamed
		if streams != nil {
			var failed error
			stream, failed = streams.await()
			streams.stop()
			err = errors.Join(err, failed)
		}
		t.close()
		if err != nil {
			return err
		}
		for way := range sums {
			text := fmt.Sprintf("%d of %d", t.ways[way].lost(), t.ways[way].sent.Load())
			if way == 1 && l.moves {
				text = "-" // what a dead host's machine sends
			}
			sums[way] = append(sums[way], text)
		}
		silences = append(silences, milliseconds(max(t.ways[0].silence(), t.ways[1].silence())))
		if l.iperf {
			stalls, megabytes, again = append(stalls, milliseconds(stream.silence)), append(megabytes, stream.bytes/1e6), append(again, stream.retransmits)
			ended += stream.ended
		} else {
			stalls = append(stalls, milliseconds(max(t.pipes[0].silence(), t.pipes[1].silence())))
		}
		for _, p := range t.pipes {
			if p.lost.Load() && !l.iperf {
				ended++
			}
		}
		wrong += t.denied.Load()
		doubled += t.ways[0].doubled() + t.ways[1].doubled()
	}
	stall := ranged(stalls)
	if l.iperf {
		stall += fmt.Sprintf(" (%s MB, %s segments sent again)", ranged(megabytes), ranged(again))
	}
	lost := fmt.Sprintf("%d of %d", ended, 2*o.losses)
	if l.moves { // the machine at their end is another one
		stall, lost = "-", "all"
	}
	fmt.Printf("| %s | %s | %s | %s | %s | %s | %d | %d |\n", l.name, strings.Join(sums[0], ", "), strings.Join(sums[1], ", "), ranged(silences), stall, lost, wrong, doubled)
	return nil
}

// flowsAgain waits until datagrams arrive each way.
func (c *clusterRig) flowsAgain(t *traffic) error {
	now := [2]uint64{t.ways[0].received.Load(), t.ways[1].received.Load()}
	return poll(clusterPatience, func() error {
		for way := range now {
			if t.ways[way].received.Load() == now[way] {
				return errors.New("nothing arrives any more")
			}
		}
		return nil
	})
}

func ranged(list []float64) string {
	slices.Sort(list)
	return fmt.Sprintf("%.0f to %.0f", list[0], list[len(list)-1])
}
