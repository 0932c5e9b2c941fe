// Package classifier finds the first of a list of security rules that a packet
// matches. Compile turns rules, in priority order, into an immutable Table;
// Linear is the plain reading of the same rules that the Table is tested against.
//
// # What matches
//
// A rule matches when its protocol, both addresses and both ports match.
//
//   - Addresses: an IPv4 prefix matches IPv4 addresses only, an IPv6 prefix IPv6
//     addresses only, so "*" is 0.0.0.0/0 and ::/0 together. Host bits of a prefix
//     are ignored. An IPv4-mapped prefix of 96 bits or more is the IPv4 prefix
//     that it maps. An empty list matches nothing.
//   - Ports: TCP and UDP have both. ICMP and ICMPv6 have no source port, and
//     their type stands for the destination port (see packet.Packet.Classification).
//     No other protocol has ports. Where a packet has no port, only a list of
//     ranges that together cover 0-65535 matches, and the tuple's field is not
//     looked at. An empty list matches nothing, nor does a range whose First is
//     above its Last.
//   - Protocols: AnyProtocol matches every protocol number. ICMP is protocol 1
//     from an IPv4 source and protocol 58 from an IPv6 source; the other two
//     combinations (58 over IPv4, 1 over IPv6) are matched by AnyProtocol alone.
//
// # How the Table works
//
// The rules' own borders cut each field's values into intervals, and inside one
// interval every value matches the same set of rules. Compile sweeps over the
// borders with one bitmap of rules that it updates as it goes, and stores each
// different bitmap once. A lookup finds the interval of each of the five fields
// by binary search and ANDs the five bitmaps; bits stand in priority order, so
// the lowest bit that is left is the answer. Beyond 256 rules a bitmap begins
// with a summary of one bit for each 64 rules: the AND passes over words that
// are zero in any of the five, and zero words are not stored.
//
// With n rules and m prefixes and ranges over all of them a lookup takes
// O(log m + n/64) steps, whatever the rules are. Memory is at most m*n/4 bytes,
// which needs lists that overlap everywhere: 4,000 rules of ClassBench's
// take 0.1 to 1 MB, ten rules of an ordinary group 1.5 KB. The number of rules is
// not limited. There is no second form for a handful of rules: the Table is
// faster than Linear from one rule on.
package classifier
