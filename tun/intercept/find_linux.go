package intercept

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/tun"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// answerTime is how long guests may take to answer for an address.
	answerTime = 200 * time.Millisecond
	// A guest that has just come is looked for so often: Docker names its process after its interface is up.
	searches, searchEvery = 20, 100 * time.Millisecond
	// maxAsked bounds the ports that are asked at a time.
	maxAsked = 256
)

// notFoundError says why a port without a name has no interface.
type notFoundError struct{ error }

func (e notFoundError) Unwrap() error { return e.error }

// link is a port's interface now.
func (i *Interceptor) link(p *Port) (netlink.Link, error) {
	if i.gone {
		return nil, notFoundError{errGone}
	}
	if p.Interface != "" {
		return i.handle.LinkByName(p.Interface)
	}
	if index, known := i.found[p.Guest]; known {
		bridge, err := i.handle.LinkByName(p.Bridge)
		if err == nil {
			if l, err := i.handle.LinkByIndex(index); err == nil && l.Attrs().MasterIndex == bridge.Attrs().Index {
				return l, nil
			}
		}
	}
	if err := i.unfound[p.Guest]; err != nil {
		return nil, notFoundError{err} // whatever keeps one guest from being found holds up nobody else
	}
	return nil, notFoundError{fmt.Errorf("no port of %q is known to be the guest's", p.Bridge)}
}

// isGuest tells ports of guests from a bridge's other ports, such as network cards. nft knows the kinds as veth and tun.
func isGuest(l netlink.Link) bool { return l.Type() == "veth" || l.Type() == "tuntap" }

// search finds ports that have no name. It tells whether all are found.
func (i *Interceptor) search(ports []Port) (all bool) {
	i.mu.Lock()
	if i.programs == nil {
		i.mu.Unlock()
		return true
	}
	var wanted []*Port
	for n := range ports {
		p := &ports[n]
		if p.Interface != "" {
			continue
		}
		if _, err := i.link(p); err != nil {
			wanted = append(wanted, p)
		}
	}
	hung := func(p *Port) int { return int(truth(errors.Is(i.unfound[p.Guest], context.DeadlineExceeded))) }
	slices.SortStableFunc(wanted, func(a, b *Port) int { return hung(a) - hung(b) }) // last, as others may be told meanwhile
	taken := map[int]bool{}
	for n := 0; n < len(ports) && len(wanted) > 0; n++ {
		if l, err := i.link(&ports[n]); err == nil {
			taken[l.Attrs().Index] = true
		}
	}
	wanted = slices.DeleteFunc(wanted, func(p *Port) bool { return i.keeps(p, taken) })
	i.mu.Unlock()
	if len(wanted) == 0 {
		return true
	}
	found := map[string]int{}
	faults := map[string]error{}
	err := i.do(func() error { return find(wanted, taken, found, faults) })
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, p := range wanted {
		fault := faults[p.Guest]
		if err != nil {
			fault = err
		}
		i.unfound[p.Guest] = fault
	}
	maps.Copy(i.found, found)
	return len(found) == len(wanted)
}

// keeps finds a guest where an earlier run stood before it: its neighbours can't take its address meanwhile.
func (i *Interceptor) keeps(p *Port, taken map[int]bool) bool {
	if i.applied || p.Process != nil || len(p.asked()) == 0 {
		return false
	}
	at := map[uint32]bool{}
	for _, a := range p.asked() {
		var owner ownerEntry
		_ = i.programs.Owners.Lookup(a.As16(), &owner) // port 0: nobody's
		at[owner.Port] = true
	}
	for index := range at {
		if _, left := i.names[int(index)]; left && len(at) == 1 && !taken[int(index)] {
			i.found[p.Guest], taken[int(index)] = int(index), true
		}
	}
	_, err := i.link(p)
	return err == nil
}

// find is search inside the namespace.
func find(wanted []*Port, taken map[int]bool, found map[string]int, faults map[string]error) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	links, err := linksOf(h)
	if err != nil {
		return err
	}
	bridges := map[string]int{}
	for _, l := range links {
		if l.Type() == "bridge" {
			bridges[l.Attrs().Name] = l.Attrs().Index
		}
	}
	var hangs error // who knows the processes doesn't answer: each question would wait anew
	var silent []*Port
	told := map[int]bool{}           // ports that a process has
	at := map[*Port][]netlink.Link{} // the ports that a guest may have
	for _, p := range wanted {
		bridge, there := bridges[p.Bridge]
		if !there {
			faults[p.Guest] = notFoundError{fmt.Errorf("no bridge %q is there", p.Bridge)}
			continue
		}
		for _, l := range links {
			if l.Attrs().MasterIndex == bridge && isGuest(l) && !taken[l.Attrs().Index] {
				at[p] = append(at[p], l)
			}
		}
		if p.Process == nil {
			silent = append(silent, p)
			continue
		}
		if hangs != nil {
			faults[p.Guest] = notFoundError{fmt.Errorf("not asked: %v", hangs)}
			continue
		}
		index, err := p.peer(h, at[p])
		if errors.Is(err, context.DeadlineExceeded) {
			hangs = err
		}
		if err != nil {
			faults[p.Guest] = err
			continue
		}
		found[p.Guest], told[index] = index, true
	}
	for _, p := range silent { // what a process tells comes before what a guest says
		at[p] = slices.DeleteFunc(at[p], func(l netlink.Link) bool { return told[l.Attrs().Index] })
	}
	answers, err := ask(silent, at, maxAsked)
	for _, p := range silent {
		switch list := answers[p]; {
		case len(list) == 1:
			found[p.Guest] = list[0].Attrs().Index
		case len(list) > 1:
			faults[p.Guest] = fmt.Errorf("several ports of %q answer for %v: %s: nsgd stands before none of them", p.Bridge, p.asked(), linkNames(list))
		default:
			faults[p.Guest] = notFoundError{fmt.Errorf("no port of %q answers for %v; asked were: %s", p.Bridge, p.asked(), linkNames(at[p]))}
		}
	}
	alone(found, faults, links)
	return err
}

// alone leaves no port to two guests: whoever answers for another guest too would have the rules and addresses of both.
func alone(found map[string]int, faults map[string]error, links []netlink.Link) {
	guests := map[int][]string{}
	for _, guest := range slices.Sorted(maps.Keys(found)) {
		guests[found[guest]] = append(guests[found[guest]], guest)
	}
	for _, l := range links {
		all := guests[l.Attrs().Index]
		if len(all) < 2 {
			continue
		}
		for _, guest := range all {
			delete(found, guest)
			faults[guest] = fmt.Errorf("%q is the port of several guests: %s: nsgd stands before none of them", l.Attrs().Name, strings.Join(all, ", "))
		}
	}
}

func linkNames(list []netlink.Link) string {
	var all []string
	for _, l := range list {
		all = append(all, l.Attrs().Name)
	}
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// peer finds the port whose other end is in the namespace of the guest's process. The kernel says which namespace that
// is: numbers of interfaces inside are the guest's own choice.
func (p *Port) peer(h *netlink.Handle, ports []netlink.Link) (index int, err error) {
	pid, err := p.Process()
	if err != nil {
		return 0, notFoundError{err}
	}
	switch same, err := sharesNamespace(pid); {
	case errors.Is(err, os.ErrPermission):
		return 0, fmt.Errorf("%w: needs root, or CAP_SYS_PTRACE", err)
	case err != nil:
		return 0, notFoundError{err}
	case same:
		return 0, notFoundError{fmt.Errorf("process %d is in the host's network namespace: it has no interface of its own", pid)}
	}
	namespace, err := h.GetNetNsIdByPid(pid)
	if err != nil {
		return 0, notFoundError{fmt.Errorf("process %d: %w", pid, err)}
	}
	var its, addressed []netlink.Link
	for _, l := range ports {
		if l.Type() == "veth" && l.Attrs().NetNsID == namespace && namespace >= 0 {
			its = append(its, l)
		}
	}
	if len(its) == 0 {
		return 0, notFoundError{fmt.Errorf("process %d has no interface at %q", pid, p.Bridge)}
	}
	if len(its) == 1 {
		return its[0].Attrs().Index, nil
	}
	err = tun.Do("pid:"+strconv.Itoa(pid), func() error {
		list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		for _, l := range its {
			if slices.ContainsFunc(list, func(a netlink.Addr) bool {
				addr, ok := toAddr(a.IP)
				return ok && a.LinkIndex == l.Attrs().ParentIndex && slices.Contains(p.Addresses, addr)
			}) {
				addressed = append(addressed, l)
			}
		}
		return err
	})
	if err != nil {
		return 0, notFoundError{fmt.Errorf("process %d: %w", pid, err)}
	}
	if len(addressed) != 1 {
		return 0, fmt.Errorf("process %d has %d interfaces at %q, and not one alone has an address of %v", pid, len(its), p.Bridge, p.Addresses)
	}
	return addressed[0].Attrs().Index, nil
}

// sharesNamespace tells that a process is in this thread's network namespace.
func sharesNamespace(pid int) (bool, error) {
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return false, err
	}
	own, err := os.Stat(ownNamespace)
	return err == nil && os.SameFile(theirs, own), err
}

// asked are the addresses that tell the guest: its private ones.
func (p *Port) asked() (list []netip.Addr) {
	for _, a := range p.Addresses {
		if near(p, a) && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// ask asks behind every port, but for more than limit, who has the guests' addresses. It goes past the bridge and past
// programs of tc.
func ask(guests []*Port, at map[*Port][]netlink.Link, limit int) (answers map[*Port][]netlink.Link, err error) {
	answers = map[*Port][]netlink.Link{}
	sockets := map[int]int{} // descriptors, by interface
	links := map[int]netlink.Link{}
	defer func() {
		for _, fd := range sockets {
			unix.Close(fd)
		}
	}()
	for _, p := range guests {
		for _, l := range at[p] {
			index := l.Attrs().Index
			if _, open := sockets[index]; !open {
				if len(sockets) == limit {
					err = fmt.Errorf("more than %d guests' ports have no attachment: the others are not asked", limit)
					continue
				}
				fd, fault := listen(index)
				if fault != nil {
					err = errors.Join(err, fmt.Errorf("interface %q: %w", l.Attrs().Name, fault))
					continue
				}
				sockets[index], links[index] = fd, l
			}
			for _, a := range p.asked() {
				// An interface that is down is no fault: the next search comes.
				_ = unix.Sendto(sockets[index], whoHas(l.Attrs().HardwareAddr, a), unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: index})
			}
		}
	}
	if len(sockets) == 0 {
		return answers, err
	}
	hear(sockets, func(index int, mac net.HardwareAddr, a netip.Addr) {
		for _, p := range guests {
			l := links[index]
			if slices.Contains(p.asked(), a) && (p.MAC == nil || bytes.Equal(p.MAC, mac)) &&
				slices.Contains(at[p], l) && !slices.Contains(answers[p], l) {
				answers[p] = append(answers[p], l)
			}
		}
	})
	return answers, err
}

// listen opens a socket at an interface. What it sends passes no filter, and it sees what filters drop.
func listen(index int) (fd int, err error) {
	const everyProtocol = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everyProtocol, Ifindex: index})
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// lateAnswers is how much is still read of each socket when answerTime is over: it came while others had the processor.
const lateAnswers = 256

// hear gives the addresses for which somebody answers within answerTime, however much else comes.
func hear(sockets map[int]int, answer func(index int, mac net.HardwareAddr, a netip.Addr)) {
	var fds []unix.PollFd
	var indexes []int
	for index, fd := range sockets {
		fds, indexes = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}), append(indexes, index)
	}
	frame := make([]byte, 128)
	for end, late := time.Now().Add(answerTime), 0; late < lateAnswers; {
		wait := 0
		if left := time.Until(end); left > 0 {
			wait = int(left/time.Millisecond) + 1
		} else {
			late++
		}
		n, err := unix.Poll(fds, wait)
		if err != nil && err != unix.EINTR || n == 0 && late > 0 {
			return
		}
		for n := range fds {
			if fds[n].Revents == 0 {
				continue
			}
			length, from, err := unix.Recvfrom(int(fds[n].Fd), frame, 0)
			if sender, ok := from.(*unix.SockaddrLinklayer); err != nil || ok && sender.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			if mac, a, ok := claims(frame[:length]); ok {
				answer(indexes[n], mac, a)
			}
		}
	}
}

// claims reads whose address the sender of a frame says it is: in ARP, or in a neighbour advertisement.
func claims(frame []byte) (mac net.HardwareAddr, a netip.Addr, ok bool) {
	const arpLength, advertisementLength = 14 + 28, 14 + 40 + 24
	if len(frame) < arpLength {
		return nil, a, false
	}
	mac = slices.Clone(net.HardwareAddr(frame[6:12]))
	switch {
	case frame[12] == 0x08 && frame[13] == 0x06 && bytes.Equal(frame[22:28], mac):
		return mac, netip.AddrFrom4([4]byte(frame[28:32])), true
	case frame[12] == 0x86 && frame[13] == 0xdd && len(frame) >= advertisementLength && frame[20] == 58 && frame[21] == 255 && frame[54] == 136:
		return mac, netip.AddrFrom16([16]byte(frame[62:78])), true
	}
	return nil, a, false
}

// follow searches until ctx ends for the ports that have no name: every probeEvery, and as often as it takes when kick
// says that interfaces have come.
func (i *Interceptor) follow(ctx context.Context, kick <-chan struct{}, tell func(error)) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	told := map[string]string{}
	for {
		rounds := searches
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-tick.C:
			rounds = 1
		}
		for ; rounds > 0 && !i.searchAgain(told, tell); rounds-- {
			select {
			case <-ctx.Done():
				return
			case <-time.After(searchEvery):
			}
		}
	}
}

// searchAgain searches for the ports and stands before those that it finds. Each fault is told once.
func (i *Interceptor) searchAgain(told map[string]string, tell func(error)) (all bool) {
	i.mu.Lock()
	ports, known := slices.Clone(i.ports), maps.Clone(i.found)
	i.mu.Unlock()
	if !slices.ContainsFunc(ports, func(p Port) bool { return p.Interface == "" || p.Shut }) {
		return true
	}
	all = i.search(ports)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil || !i.applied {
		return true
	}
	var missing notFoundError
	for n := range i.ports {
		name := i.ports[n].Guest
		err := i.unfound[name]
		if err == nil || errors.As(err, &missing) {
			delete(told, name)
		} else if told[name] != err.Error() {
			told[name] = err.Error()
			tell(fmt.Errorf("intercept: interface %q: %w", name, err))
		}
	}
	var err error
	if !maps.Equal(known, i.found) {
		err = i.apply(i.ports, i.rests)
	} else {
		err = i.shut(i.ports, i.attached) // the ports of other bridges may have changed
	}
	if err != nil {
		tell(fmt.Errorf("intercept: %w", err))
	}
	return all
}
