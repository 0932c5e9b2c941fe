// Package classifier finds the first security rule that matches a packet. Compile turns
// rules, in priority order, into an immutable Table. Linear is the simple and slow
// reference that tests compare the Table with.
//
// # What matches
//
// A rule matches when its protocol, both addresses and both ports match.
//
//   - Addresses: an IPv4 prefix matches only IPv4 addresses, an IPv6 prefix only IPv6
//     addresses. "*" is therefore 0.0.0.0/0 and ::/0 together. Host bits of a prefix are
//     ignored. An IPv4-mapped prefix of 96 bits or more means the IPv4 prefix in it. An
//     empty list matches nothing.
//   - Ports: TCP and UDP have both. ICMP and ICMPv6 have no source port, and their type is
//     the destination port (see packet.Packet.Classification). Other protocols have no
//     ports. A missing port matches only ranges that together cover 0-65535; the tuple's
//     field is then not read. An empty list matches nothing, nor does a range with First
//     above Last.
//   - Protocols: AnyProtocol matches every protocol number. ICMP is protocol 1 from an IPv4
//     source and protocol 58 from an IPv6 source. Only AnyProtocol matches 58 over IPv4 and
//     1 over IPv6.
//
// # How the Table works
//
// The borders of rules cut each field's values into intervals. All values of an interval
// match the same set of rules. Compile sweeps over the borders, updates one bitmap of rules
// on the way and stores each different bitmap once: it is the interval's class. A lookup
// finds the classes of the five fields and ANDs their bitmaps. Bits are in priority order,
// so the lowest remaining bit is the answer. Most lookups end in the first words.
//
// An index finds the interval. A node divides the values from its first border to its last
// into equal slots, one to four for each border. A slot without a border inside holds the
// class itself. A slot with up to three borders leads to a run of four intervals, which are
// compared at once. A slot with more borders leads to another node over just these. So a
// crowded subnet of 10.0.0.0/8 costs two or three reads, like a single prefix.
//
// Above 256 rules a bitmap is made of parts of 64 words. A part has a summary with one bit
// for each word, so that the AND skips words that are zero in any of the bitmaps. Words are
// in blocks of eight, and equal blocks are stored once, because neighbouring intervals
// differ in a rule or two. A destination port then has one bitmap for each protocol that
// the rules tell apart, so three bitmaps are ANDed instead of five. These bitmaps leave out
// the rules after the first that matches any addresses and source port. The source port's
// bitmap is read only if some rule names source ports.
//
// # What it costs
//
// With n rules and m borders, a lookup reads at most one node for each three bits of a
// field's width, usually two or three nodes in all. It ANDs n/64 words if no earlier word
// has a match. Compile takes O(m + s*w) steps for m prefixes and ranges and s values where
// the bitmap changes in w blocks. Memory is 20 to 50 bytes for each border. Each different
// bitmap takes 40 bytes for 4,096 rules and 64 bytes for each block of its own. Examples:
// ten rules of an ordinary group 4 KB, 4,000 of them 2.5 MB, 4,000 rules of ClassBench 0.3
// to 0.7 MB, fifty rules to the largest service tags 2.3 MB. The number of rules is not
// limited. A few rules need no other form: even with one rule, the Table is faster than
// Linear.
package classifier
