// Package packet turns the bytes of one IP packet into a flat Packet: addresses,
// ports, TCP flags, ICMP type, fragment facts, wire segments. It is a leaf: it
// imports gopacket's layers and nothing of nsgd, so that the flow table, the
// classifier and the engine share its Tuple without knowing each other.
package packet
