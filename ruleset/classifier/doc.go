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
// different bitmap once: it is the interval's class. A lookup finds the classes of
// the five fields and ANDs their bitmaps; bits stand in priority order, so the
// lowest bit that is left is the answer, and most lookups end in the first words.
//
// An interval is found through an index that follows where the borders lie. A
// node divides the values from its first border to its last into equal slots, one
// to four for each border. A slot without a border inside holds the class
// itself; one with up to three leads to a run of four intervals that are compared at
// once; one with more leads to a node over just those borders, so that a crowded
// subnet of 10.0.0.0/8 costs two or three reads as a lone prefix does.
//
// Beyond 256 rules a bitmap is parts of 64 words, each with a summary of one bit
// for each word: the AND passes over words that are zero in any of the five. The
// words stand in blocks of eight, and equal blocks are stored once, because
// neighbouring intervals differ in a rule or two. A destination port then has a
// bitmap for each protocol that the rules tell apart, without the rules behind the
// first that matches any addresses and source port, so that three are ANDed; the
// source port's is read where not every rule matches every source port.
//
// # What it costs
//
// With n rules and m borders a lookup takes at most one node for each three
// bits of a field's width, two or three as rules are, and the AND of n/64 words
// when no earlier one has a match. Compile takes O(m + s*w) steps for m prefixes
// and ranges and the s places where the bitmap changes in w blocks. Memory is 20
// to 50 bytes for each border and for each different bitmap 40 bytes for 4,096 rules
// and 64 for each block that no other has: ten rules of an ordinary group 4 KB,
// 4,000 of them 2.5 MB, 4,000 of ClassBench's 0.3 to 0.7 MB, fifty rules to the
// largest service tags 2.3 MB. The number of rules is not limited. There is no
// second form for a handful of rules: the Table is faster than Linear from one
// rule on.
package classifier
