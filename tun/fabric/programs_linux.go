package fabric

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
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
	if err := rlimit.RemoveMemlock(); err != nil { // kernels before 5.11 count programs there
		return nil, err
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("programs: %w", err)
	}
	fits := true
	for name, m := range earlier {
		fits = fits && spec.Maps[name] != nil && spec.Maps[name].Compatible(m) == nil
	}
	options := ebpf.CollectionOptions{}
	if fits {
		options.MapReplacements = earlier
	}
	p := &programs{}
	if err := spec.LoadAndAssign(p, &options); err != nil {
		if errors.Is(err, ebpf.ErrNotSupported) {
			err = fmt.Errorf("%w: a kernel with BPF for tc is needed (CONFIG_NET_CLS_BPF, 5.19 or newer)", err)
		}
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN", err)
		}
		return nil, fmt.Errorf("load programs: %w", err)
	}
	return p, nil
}

// earlierMaps are the maps of an earlier run, by the filters that it has left: the first one is of VXLAN's device. Those
// of a TUN have some more. None when the filters are of different runs.
func earlierMaps(filters []*netlink.BpfFilter) (found map[string]*ebpf.Map, err error) {
	found = map[string]*ebpf.Map{}
	var run ebpf.MapID
	for _, f := range filters {
		more, err := mapsOf(ebpf.ProgramID(f.Id))
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

// mapsOf are the maps of a program.
func mapsOf(id ebpf.ProgramID) (found map[string]*ebpf.Map, err error) {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return nil, err
	}
	found = map[string]*ebpf.Map{}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return found, err
		}
		about, err := m.Info()
		if err != nil || !strings.HasPrefix(about.Name, prefix) || found[about.Name] != nil {
			m.Close()
			continue
		}
		found[about.Name] = m
	}
	return found, nil
}

// close gives the descriptors back. What filters use stays.
func (p *programs) close() {
	for _, c := range []interface{ Close() error }{
		p.Sends, p.Receives, p.Settings, p.Devices, p.Tunnels, p.Routes, p.Senders, p.Members, p.Counts, p.Refused,
	} {
		c.Close()
	}
}
