// Package intercept puts nsgd before interfaces that exist: a VM's tap, a container's veth, this host's own
// network card. Programs of tc at the interface hand IPv4 and IPv6 to the TUN device of the network interface
// (NIC) behind it, and put back what nsgd lets pass. No address, route, rule or sysctl of the host changes.
//
//	guest --> [interface: nsgd_sends]    --> TUN of the NIC --> nsgd
//	nsgd  --> [TUN: nsgd_writes]         --> the interface  --> guest, or bridge and routes of the host
//	host  --> [interface: nsgd_receives] --> TUN of the rest, picked by the source --> nsgd
//
// With [Port.Host] this host is the guest, and egress and ingress swap.
//
// ARP, neighbour discovery, requests for DHCP, MLD and IGMP pass without nsgd, from a guest by its own addresses and
// its own MAC alone. A guest sends no router advertisements, redirects, answers of DHCP, VLAN tags or other protocols.
//
// Filters, maps and devices outlive the process, so that an interface stays closed while nsgd is away. The maps
// hang on the filters: the next run finds them there, and [Detach] too. Nothing is pinned in a file system.
package intercept
