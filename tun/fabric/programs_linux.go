package fabric

import (
	_ "embed"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/nsgd/nsgd/tun/program"
	"github.com/vishvananda/netlink"
)

// object is programs.c, compiled by `go generate`. The build needs no compiler for it.
//
//go:generate ../objecttest/compile
//go:embed programs.o
var object []byte

// prefix begins the names of the programs, their maps and their filters.
const prefix = "fabric_"

// programs are the loaded programs and their maps.
type programs struct {
	Sends    *ebpf.Program `ebpf:"fabric_sends"`
	Receives *ebpf.Program `ebpf:"fabric_receives"`
	Settings *ebpf.Map     `ebpf:"fabric_settings"`
	Devices  *ebpf.Map     `ebpf:"fabric_devices"`
	Tunnels  *ebpf.Map     `ebpf:"fabric_tunnels"`
	Routes   *ebpf.Map     `ebpf:"fabric_routes"`
	Senders  *ebpf.Map     `ebpf:"fabric_senders"`
	Members  *ebpf.Map     `ebpf:"fabric_members"`
	Counts   *ebpf.Map     `ebpf:"fabric_counts"`
	Refused  *ebpf.Map     `ebpf:"fabric_refused"`
}

// load loads the programs, with the maps of an earlier run where they fit.
func load(earlier map[string]*ebpf.Map) (*programs, error) {
	p := &programs{}
	err := program.Load(&program.Wanted{Object: object, Earlier: earlier,
		Kernel: "a kernel with BPF for tc is needed (CONFIG_NET_CLS_BPF, 5.19 or newer)", Rights: "root, or CAP_NET_ADMIN and CAP_SYS_ADMIN"}, p)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// earlierMaps are the maps of an earlier run, by the filters that it has left: the first one is of VXLAN's device. Those
// of a TUN have some more. None when the filters are of different runs.
func earlierMaps(filters []*netlink.BpfFilter) (found map[string]*ebpf.Map, err error) {
	found = map[string]*ebpf.Map{}
	var run ebpf.MapID
	for _, f := range filters {
		more := map[string]*ebpf.Map{}
		err := program.Maps(ebpf.ProgramID(f.Id), prefix, more)
		if err == nil && more[prefix+"settings"] != nil {
			var about *ebpf.MapInfo
			if about, err = more[prefix+"settings"].Info(); err == nil {
				id, _ := about.ID()
				if run == 0 {
					run = id
				}
				if id != run {
					closeAll(more)
					closeAll(found)
					return nil, nil
				}
			}
		}
		if err != nil {
			closeAll(more)
			closeAll(found)
			return nil, fmt.Errorf("filter %s: %w", f.Name, err)
		}
		for name, m := range more {
			if found[name] != nil {
				m.Close()
				continue
			}
			found[name] = m
		}
	}
	return found, nil
}

func closeAll(list map[string]*ebpf.Map) {
	for _, m := range list {
		m.Close()
	}
}
