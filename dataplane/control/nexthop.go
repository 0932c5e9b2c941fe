package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// NextHopQuestion asks where packets go, as Azure Network Watcher's next hop does. One of
// NetworkInterface and VirtualMachine is enough: of a machine the NIC that has the source
// address is meant.
type NextHopQuestion struct {
	NetworkInterface string // name or id
	VirtualMachine   string // name or id
	Source           string // an address of the NIC
	Destination      string
}

// NextHop answers from a snapshot.
func NextHop(s *topology.Snapshot, q NextHopQuestion) (*azure.NextHopResult, error) {
	source, err := parseAddress("source", q.Source)
	if err != nil {
		return nil, badRequest(err)
	}
	destination, err := parseAddress("destination", q.Destination)
	if err != nil {
		return nil, badRequest(err)
	}
	nic, err := q.find(s.Policy, source)
	if err != nil {
		return nil, asError(err, http.StatusNotFound)
	}
	result, err := ask.NextHop(s, nic, source, destination)
	if err != nil {
		return nil, asError(err, http.StatusNotFound)
	}
	return result, nil
}

func parseAddress(what, text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return a, fmt.Errorf("%s address: %q: allowed is an IP address", what, text)
	}
	return a.Unmap(), nil
}

// find is the NIC that is meant.
func (q *NextHopQuestion) find(set *policy.Set, source netip.Addr) (*policy.NetworkInterface, error) {
	if q.NetworkInterface == "" && q.VirtualMachine == "" {
		return nil, errors.New("a network interface or a virtual machine is needed")
	}
	if q.NetworkInterface != "" {
		nic, err := set.NetworkInterface(q.NetworkInterface)
		if err == nil && q.VirtualMachine != "" && !policy.SameVirtualMachine(q.VirtualMachine, nic.VirtualMachineID) {
			err = fmt.Errorf("network interface %q is not of virtual machine %q", nic.Name, q.VirtualMachine)
		}
		return nic, err
	}
	nics, err := set.VirtualMachine(q.VirtualMachine)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, nic := range nics {
		names = append(names, nic.Name)
		for i := range nic.IPConfigurations {
			if nic.IPConfigurations[i].Address == source {
				return nic, nil
			}
		}
	}
	return nil, fmt.Errorf("virtual machine %q: none of its network interfaces (%s) has the address %s", q.VirtualMachine, strings.Join(names, ", "), source)
}

// NextHop asks where a NIC's packets to an address go.
func (c *Client) NextHop(ctx context.Context, q NextHopQuestion) (*azure.NextHopResult, error) {
	return query[azure.NextHopResult](ctx, c, http.MethodGet, "next-hop", url.Values{
		"networkInterface": {q.NetworkInterface}, "virtualMachine": {q.VirtualMachine},
		"source": {q.Source}, "destination": {q.Destination},
	})
}

func (s *Server) nextHop(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	result, err := s.service.NextHop(NextHopQuestion{
		NetworkInterface: v.Get("networkInterface"), VirtualMachine: v.Get("virtualMachine"),
		Source: v.Get("source"), Destination: v.Get("destination"),
	})
	answer(w, result, err)
}
