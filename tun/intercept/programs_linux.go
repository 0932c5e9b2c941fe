package intercept

import (
	_ "embed"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/nsgd/nsgd/tun/program"
	"golang.org/x/sys/unix"
)

// object is programs.c, compiled by `go generate`. The build needs no compiler for it.
//
//go:generate ../objecttest/compile
//go:embed programs.o
var object []byte

// prefix begins the names of the programs, their maps and their filters.
const prefix = "nsgd_"

// programs are the loaded programs and their maps.
type programs struct {
	Sends     *ebpf.Program `ebpf:"nsgd_sends"`
	Receives  *ebpf.Program `ebpf:"nsgd_receives"`
	Writes    *ebpf.Program `ebpf:"nsgd_writes"`
	Settings  *ebpf.Map     `ebpf:"nsgd_settings"`
	Ports     *ebpf.Map     `ebpf:"nsgd_ports"`
	Devices   *ebpf.Map     `ebpf:"nsgd_devices"`
	Owners    *ebpf.Map     `ebpf:"nsgd_owners"`
	Strangers *ebpf.Map     `ebpf:"nsgd_strangers"`
	Rests     *ebpf.Map     `ebpf:"nsgd_rests"`
	MACs      *ebpf.Map     `ebpf:"nsgd_macs"`
	Senders   *ebpf.Map     `ebpf:"nsgd_senders"`
	Peers     *ebpf.Map     `ebpf:"nsgd_peers"`
	Stations  *ebpf.Map     `ebpf:"nsgd_stations"`
	Routers   *ebpf.Map     `ebpf:"nsgd_routers"`
	Carried   *ebpf.Map     `ebpf:"nsgd_carried"`
	Counts    *ebpf.Map     `ebpf:"nsgd_counts"`
}

// The structs of programs.c. Flags of portEntry have their names there.
type (
	portEntry struct {
		Device, Flags uint32
		Name          [unix.IFNAMSIZ]byte
	}
	ownerEntry struct{ Port, Used uint32 }
	peerEntry  struct {
		Interface uint32
		Addr      [16]byte
	}
	restEntry   struct{ Device, Near uint32 }
	prefixEntry struct {
		Bits uint32
		Addr [16]byte
	}
	macEntry struct {
		Byte [6]byte
		_    [2]byte
	}
	settingsEntry struct {
		Mark, _   uint32
		OpenAfter uint64
	}
)

const (
	flagHost     = 1
	flagForwards = 2
	flagGateway  = 4
	flagClosed   = 8
)

// closedPort drops all frames of an interface that is not called as its port any more.
func closedPort(name string) portEntry {
	e := portEntry{Flags: flagClosed}
	copy(e.Name[:], name)
	return e
}

// load loads the programs, with the maps of an earlier run where they fit.
func load(earlier map[string]*ebpf.Map) (*programs, error) {
	p := &programs{}
	err := program.Load(&program.Wanted{Object: object, Earlier: earlier, Whole: true,
		Kernel: "a kernel with BPF for tc is needed (CONFIG_NET_CLS_BPF, 5.8 or newer)", Rights: "root, or CAP_NET_ADMIN and CAP_SYS_ADMIN"}, p)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// earlierMaps finds the maps of an earlier run, by the filters that it left at the interfaces.
func earlierMaps(links []filteredLink) (map[string]*ebpf.Map, error) {
	found := map[string]*ebpf.Map{}
	for _, l := range links {
		for _, f := range l.ours {
			if err := program.Maps(ebpf.ProgramID(f.Id), prefix, found); err != nil {
				return found, fmt.Errorf("interface %q: filter %s: %w", l.link.Attrs().Name, f.Name, err)
			}
		}
	}
	return found, nil
}

// nameOf is the name that an interface had when an earlier run attached it. A map of another layout knows none.
func nameOf(ports *ebpf.Map, index uint32) string {
	var e portEntry
	if ports == nil || ports.Lookup(index, &e) != nil {
		return ""
	}
	return unix.ByteSliceToString(e.Name[:])
}

// ids are the kernel's numbers of the programs at interfaces.
func (p *programs) ids() (map[int]bool, error) {
	ids := map[int]bool{}
	for _, one := range []*ebpf.Program{p.Sends, p.Receives} {
		info, err := one.Info()
		if err != nil {
			return nil, fmt.Errorf("programs: %w", err)
		}
		if id, ok := info.ID(); ok {
			ids[int(id)] = true
		}
	}
	return ids, nil
}

// entryOf is a prefix as the map of the rest has it, IPv4 in IPv6.
func entryOf(p netip.Prefix) prefixEntry {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return prefixEntry{uint32(bits), p.Masked().Addr().As16()}
}
