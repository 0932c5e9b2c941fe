// Package coalesce puts consecutive small packets of one flow together, so that
// they leave as one superpacket: a device takes one in the time of one packet.
//
// Nothing is lost by it. The receiving kernel cuts a superpacket into packets that equal
// those that came, byte by byte and in their order: only packets are put together whose
// headers differ in nothing but what counts up by itself (IPv4 identification, TCP sequence number),
// whose payloads are equally long but for a shorter last one, and whose checksums are right or not made yet.
package coalesce
