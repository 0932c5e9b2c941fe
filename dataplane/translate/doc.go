// Package translate rewrites packets: addresses, ports and ICMP identifiers, and the checksums
// that cover them, brought up to date by what has changed (RFC 1624). Nothing else of a packet
// changes, and rewriting it back gives the packet that it was, a wrong checksum included.
//
// The one exception is a checksum of 0xffff, which but in UDP only a message of nothing but zeros
// has: it comes back as 0, the same number. UDP's 0 means that there is none, and stays.
//
// Where a virtio-net header leaves a checksum to do, the field holds the sum of the
// pseudo-header, of which only the addresses change.
package translate
