// Package fabric carries packets between hosts, by the kernel's VXLAN. What nsgd writes to the TUN device of a tunnel
// goes to the host of its destination, and what another host sends is read there.
//
//	nsgd --> TUN [fabric_sends] --> VXLAN --> underlay --> VXLAN [fabric_receives] --> TUN --> nsgd
//
// Programs of tc take each packet from one device to the other. So no route, rule, forwarding or sysctl of the host has
// a part in it, hops are not counted, and superpackets stay whole. A program that finds no entry drops: VXLAN's number
// (VNI), its source, its host and its destination must be known. A table of nft lets only known hosts in at the underlay,
// and drops what would reach this host from a device of the fabric past the programs.
//
// The device, the filters with their maps, and the table outlive the process: packets go on while nsgd restarts. The next
// run finds them there. Nothing is pinned in a file system.
package fabric
