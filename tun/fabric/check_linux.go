package fabric

import (
	"cmp"
	"errors"
	"fmt"
	"os/exec"
	"runtime"

	"github.com/cilium/ebpf/features"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nsgd/nsgd/tun"
)

// Check finds what keeps a state from working in a namespace, each fault by its name, and changes nothing. The TUN
// devices need not be there yet. What it finds may change before Apply.
func Check(namespace string, s State) error {
	if err := s.Validate(); err != nil {
		return fmt.Errorf("fabric: %w", err)
	}
	faults := []error{checkKernel()}
	if _, err := exec.LookPath("nft"); err != nil {
		faults = append(faults, fmt.Errorf("%w: install nftables", err))
	}
	faults = append(faults, tun.Do(namespace, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		defer h.Close()
		return errors.Join(checkMTU(h, &s), checkDevice(h, &s))
	}))
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("fabric: %w", err)
	}
	return nil
}

// minKernel is the first kernel whose programs set the source of outer packets.
const minKernel = 5<<16 | 19<<8

// checkKernel makes a device of VXLAN GPE in a namespace that ends with its thread.
func checkKernel() error {
	if version, err := features.LinuxVersionCode(); err != nil || version < minKernel {
		return fmt.Errorf("kernel %d.%d: 5.19 or newer is needed: %w", version>>16, version>>8&0xff, cmp.Or(err, errors.ErrUnsupported))
	}
	const name, port = "nsgd-probe", 4790
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocks it: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		done <- func() error {
			if err := create(name, port); err != nil {
				return err
			}
			l, err := netlink.LinkByName(name)
			if err == nil && l.Attrs().EncapType != encapsulation { // kernels before 4.7 ignore what they don't know
				err = errors.New("the kernel has VXLAN, but not GPE")
			}
			return err
		}()
	}()
	return <-done
}

// checkMTU finds tunnels whose packets don't fit into the underlay's.
func checkMTU(h *netlink.Handle, s *State) error {
	mtu, err := underlayMTU(h, s)
	if err != nil {
		return err
	}
	var faults []error
	fits := mtu - Overhead(s.Underlay)
	for n := range s.Tunnels {
		if t := &s.Tunnels[n]; t.MTU > fits {
			faults = append(faults, fmt.Errorf("tunnel %d: MTU %d of %q: the underlay has %d, less %d for the outer headers: %d or less is allowed",
				t.VNI, t.MTU, t.TUN, mtu, Overhead(s.Underlay), fits))
		}
	}
	return errors.Join(faults...)
}

// checkDevice finds a foreign device of the name, and a port that is taken.
func checkDevice(h *netlink.Handle, s *State) error {
	links, err := linksOf(h)
	if err != nil {
		return err
	}
	held := false
	for _, l := range links {
		if v, ok := l.(*netlink.Vxlan); ok && isOurs(l) {
			held = held || v.Port == int(s.Port) && l.Attrs().RawFlags&unix.IFF_UP != 0
		} else if l.Attrs().Name == s.Device {
			err = fmt.Errorf("device %q %w", s.Device, ErrForeign)
		}
	}
	if held {
		return err
	}
	return errors.Join(err, checkPort(s.Port, unix.AF_INET, &unix.SockaddrInet4{Port: int(s.Port)}), checkPort(s.Port, unix.AF_INET6, &unix.SockaddrInet6{Port: int(s.Port)}))
}

// checkPort binds as the kernel does for VXLAN: to every address.
func checkPort(port uint16, family int, everywhere unix.Sockaddr) error {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("port %d: %w", port, err)
	}
	defer unix.Close(fd)
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("port %d: %w", port, err)
		}
	}
	if err := unix.Bind(fd, everywhere); err != nil {
		return fmt.Errorf("port %d of UDP: %w: another program has it, or a VXLAN device that is not nsgd's: `ss -lun` and `ip -d link` show them", port, err)
	}
	return nil
}
