//go:build ignore

// The programs of tc at an interface that exists. They hand IPv4 and IPv6 to nsgd's TUN devices, and put back
// the Ethernet header of what nsgd lets pass. Addresses are IPv6, or IPv4 in IPv6.
//
// SPDX-License-Identifier: Apache-2.0
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define inline static __always_inline
#define PASS TC_ACT_UNSPEC // the interface's other filters see the packet
#define DROP TC_ACT_SHOT

// Flags of struct port.
#define THIS_HOST 1 // the NIC is this host's own: it sends at egress
#define FORWARDS 2  // the NIC also sends and receives for others
#define GATEWAY 4   // nsgd answers the guest's solicitations, at its interface, as the gateway
#define CLOSED 8    // the interface has another name now

// Indexes of struct counts: count.go has their names, in the same order.
enum { CAPTURED_OUT, CAPTURED_IN, DELIVERED, SENT_ON, PASSED, SENT,
       MALFORMED, VLAN, ETHERTYPE, SPOOFED_MAC, SPOOFED_ADDRESS, SERVER, NOT_ADDRESSED, GROUP,
       NO_MAC, NO_SENDER, NO_DEVICE, FOR_GATEWAY, COUNTS };

struct addr { __u32 word[4]; };
struct mac { __u8 byte[6]; __u8 zero[2]; } __attribute__((aligned(8)));
struct port { __u32 device; __u32 flags; char name[16]; }; // device: the NIC's TUN; name: the interface's, by which another run knows it
struct owner { __u32 port; __u32 used; };                 // used: the NIC has sent from it
struct rest { __u32 device; __u32 near; };                // near: inside the virtual networks
struct prefix { __u32 bits; struct addr addr; };
struct peer { __u32 interface; struct addr addr; };
struct counts { __u64 of[COUNTS]; };
struct settings { __u32 mark; __u32 unused; __u64 open_after; }; // nanoseconds of the monotonic clock; 0: never

#define MAP(name, kind, k, v, max, more) \
  struct { __uint(type, kind); __type(key, k); __type(value, v); __uint(max_entries, max); __uint(map_flags, more); } name SEC(".maps")
MAP(nsgd_settings, BPF_MAP_TYPE_ARRAY, __u32, struct settings, 1, 0);
MAP(nsgd_ports, BPF_MAP_TYPE_HASH, __u32, struct port, 4096, 0);             // by the interface
MAP(nsgd_devices, BPF_MAP_TYPE_HASH, __u32, __u32, 8192, 0);                 // TUN: its port, 0: of the rest
MAP(nsgd_owners, BPF_MAP_TYPE_HASH, struct addr, struct owner, 65536, 0);    // by a NIC's address
MAP(nsgd_strangers, BPF_MAP_TYPE_LRU_HASH, struct peer, __u32, 4096, 0);     // who sends at the port, and no NIC there has it
MAP(nsgd_rests, BPF_MAP_TYPE_LPM_TRIE, struct prefix, struct rest, 65536, BPF_F_NO_PREALLOC);
MAP(nsgd_macs, BPF_MAP_TYPE_HASH, __u32, struct mac, 4096, 0);               // of the NIC, by port
MAP(nsgd_senders, BPF_MAP_TYPE_HASH, __u32, struct mac, 4096, 0);            // who sent to the NIC last, by port
MAP(nsgd_peers, BPF_MAP_TYPE_LRU_HASH, struct peer, struct mac, 65536, 0);   // whom the NIC sends to
MAP(nsgd_stations, BPF_MAP_TYPE_LRU_HASH, struct mac, __u32, 4096, 0);         // a guest's MAC: its port
MAP(nsgd_routers, BPF_MAP_TYPE_LRU_HASH, struct peer, __u32, 4096, 0);       // who advertised itself to the port
MAP(nsgd_carried, BPF_MAP_TYPE_LRU_HASH, struct addr, __u32, 65536, 0);      // source that a NIC forwarded: its port
MAP(nsgd_counts, BPF_MAP_TYPE_PERCPU_HASH, __u32, struct counts, 8192, 0);   // by port, or TUN of the rest

struct ethernet { __u8 to[6]; __u8 from[6]; __be16 type; };

// packet is what one frame says.
struct packet {
  struct addr src, dst;
  struct mac to, from;
  __be16 type;
  __u16 sport, dport; // of DHCP, in host order; 0: no UDP, or a fragment
  __u8 protocol, hops, message;  // message: ICMPv6's or IGMP's type
  __u8 options;                  // IPv4 has some
};

inline void count(__u32 interface, __u32 what) {
  struct counts *c = bpf_map_lookup_elem(&nsgd_counts, &interface);
  if (c && what < COUNTS) c->of[what]++;
}
inline int drop(__u32 interface, __u32 why) { count(interface, why); return DROP; }
inline int pass(__u32 interface) { count(interface, PASSED); return PASS; }
inline int same_mac(const struct mac *a, const struct mac *b) { return *(__u64 *)a == *(__u64 *)b; }
inline int is_group(const struct mac *m) { return m->byte[0] & 1; }
inline int is4(const struct addr *a) { return !a->word[0] && !a->word[1] && a->word[2] == bpf_htonl(0xffff); }
inline int is_zero(const struct addr *a) { return !a->word[0] && !a->word[1] && (!a->word[2] || is4(a)) && !a->word[3]; }
inline int is_link_local(const struct addr *a) { return (a->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000); }
inline int is_group_addr(const struct addr *a) {
  return is4(a) ? (a->word[3] & bpf_htonl(0xe0000000)) == bpf_htonl(0xe0000000) : (a->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}
inline int owns(__u32 port, const struct addr *a) {
  struct owner *owner = bpf_map_lookup_elem(&nsgd_owners, a);
  return owner && owner->port == port;
}
// uses is owns of an address that the NIC sends from. It notes it: the state of the port shows it.
inline int uses(__u32 interface, struct port *port, const struct addr *a) {
  struct owner *owner = bpf_map_lookup_elem(&nsgd_owners, a);
  if (owner && owner->port == interface) {
    if (!owner->used) owner->used = 1;
    return 1;
  }
  struct peer key = { interface, *a };
  if (!(port->flags & FORWARDS) && !is_zero(a) && !is_link_local(a) && !bpf_map_lookup_elem(&nsgd_strangers, &key))
    bpf_map_update_elem(&nsgd_strangers, &key, &interface, BPF_ANY);
  return 0;
}
// On this link and no further: ff02::/16.
inline int is_link_group(const struct addr *a) { return (a->word[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0xff020000); }
inline int is_everybody(const struct addr *a) { return is4(a) ? a->word[3] == 0xffffffff : is_link_group(a); }
inline void set4(struct addr *a, __u32 ip) { a->word[0] = a->word[1] = 0; a->word[2] = bpf_htonl(0xffff); a->word[3] = ip; }

// ended: the time in which a run had to be confirmed is over.
inline int ended(void) {
  __u32 zero = 0;
  struct settings *s = bpf_map_lookup_elem(&nsgd_settings, &zero);
  return s && s->open_after && bpf_ktime_get_ns() > s->open_after;
}
inline __u32 mark(void) {
  __u32 zero = 0;
  struct settings *s = bpf_map_lookup_elem(&nsgd_settings, &zero);
  return s ? s->mark : 0;
}
// ours: nsgd sent it. What leaves shows the TUN where it came in, which nobody can forge. What comes in has a
// secret mark, which only root of this host could set.
inline int ours(struct __sk_buff *s, int egress) {
  if (egress) {
    __u32 in = s->ingress_ifindex;
    return in && bpf_map_lookup_elem(&nsgd_devices, &in);
  }
  __u32 m = mark();
  if (!m || s->mark != m) return 0;
  s->mark = 0;
  return 1;
}

// frame reads addresses of Ethernet. It fails on a short frame.
inline int frame(struct __sk_buff *s, struct packet *p) {
  struct ethernet e;
  if (bpf_skb_load_bytes(s, 0, &e, sizeof e)) return -1;
  __builtin_memcpy(p->to.byte, e.to, 6);
  __builtin_memcpy(p->from.byte, e.from, 6);
  p->type = e.type;
  return 0;
}
inline int is_tagged(struct __sk_buff *s, struct packet *p) {
  return s->vlan_present || p->type == bpf_htons(0x8100) || p->type == bpf_htons(0x88a8) || p->type == bpf_htons(0x9100);
}
// carries: a network layer may be inside, which nsgd can't judge there: PPPoE's sessions, MPLS, MACsec, provider
// bridges, TRILL, BATMAN, NSH.
inline int carries(struct packet *p) {
  switch (bpf_ntohs(p->type)) {
  case 0x8864: case 0x8847: case 0x8848: case 0x88e5: case 0x88e7: case 0x22f3: case 0x4305: case 0x894f: return 1;
  }
  return 0;
}
inline void ports_at(struct __sk_buff *s, struct packet *p, int at) {
  __be16 ports[2];
  if (bpf_skb_load_bytes(s, at, ports, sizeof ports)) return;
  p->sport = bpf_ntohs(ports[0]);
  p->dport = bpf_ntohs(ports[1]);
}
inline int ipv4(struct __sk_buff *s, struct packet *p) {
  struct { __u8 version, tos; __be16 len, id, fragment; __u8 ttl, protocol; __be16 sum; __u32 src, dst; } h;
  if (bpf_skb_load_bytes(s, 14, &h, sizeof h)) return -1;
  if (h.version < 0x45 || h.version > 0x4f) return -1;
  set4(&p->src, h.src);
  set4(&p->dst, h.dst);
  p->hops = h.ttl;
  if (h.fragment & bpf_htons(0x3fff)) return 0;
  p->protocol = h.protocol;
  int at = 14 + (h.version & 15) * 4;
  p->options = h.version != 0x45;
  if (h.protocol == 17) ports_at(s, p, at);
  if (h.protocol == 2) bpf_skb_load_bytes(s, at, &p->message, 1);
  return 0;
}
inline int ipv6(struct __sk_buff *s, struct packet *p) {
  struct { __u32 flow; __be16 len; __u8 next, hops; struct addr src, dst; } h;
  if (bpf_skb_load_bytes(s, 14, &h, sizeof h) || (h.flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000)) return -1;
  p->src = h.src;
  p->dst = h.dst;
  p->hops = h.hops;
  p->protocol = h.next;
  if (h.next == 58) bpf_skb_load_bytes(s, 54, &p->message, 1);
  if (h.next == 17) ports_at(s, p, 54);
  if (h.next == 0) { // hop-by-hop options of 8 bytes, as multicast listener reports have
    __u8 options[2];
    if (!bpf_skb_load_bytes(s, 54, options, 2) && options[0] == 58 && options[1] == 0) bpf_skb_load_bytes(s, 62, &p->message, 1);
  }
  return 0;
}
// hides_neighbour: neighbour discovery stands behind extension headers. Hosts take it as if it stood in front, but
// nsgd would judge it as any ICMPv6 (RFC 7113). What has more headers is refused by nsgd.
inline int hides_neighbour(struct __sk_buff *s, __u8 next) {
  int at = 54;
  for (int i = 0; i < 9; i++) {
    struct { __u8 next, len; __be16 fragment; } h;
    __u8 message;
    if (next == 58) return !bpf_skb_load_bytes(s, at, &message, 1) && message >= 133 && message <= 137;
    if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60) return 0;
    if (bpf_skb_load_bytes(s, at, &h, sizeof h)) return 0;
    if (next == 44 && h.fragment & bpf_htons(0xfff8)) return 0; // its first fragment was looked at
    at += next == 44 ? 8 : next == 51 ? (h.len + 2) * 4 : (h.len + 1) * 8;
    next = h.next;
  }
  return 0;
}
inline int is_ip(struct packet *p) { return p->type == bpf_htons(0x0800) || p->type == bpf_htons(0x86dd); }
inline int network(struct __sk_buff *s, struct packet *p) { return p->type == bpf_htons(0x0800) ? ipv4(s, p) : ipv6(s, p); }

inline int is_neighbour(struct packet *p) { return p->type == bpf_htons(0x86dd) && p->protocol == 58 && p->hops == 255 && p->message >= 133 && p->message <= 137; }
inline int is_listener(struct packet *p) { // MLD
  return p->type == bpf_htons(0x86dd) && p->protocol == 0 && p->hops == 1 && is_link_group(&p->dst)
    && ((p->message >= 130 && p->message <= 132) || p->message == 143);
}
inline int is_igmp(struct packet *p) { return p->type == bpf_htons(0x0800) && p->protocol == 2 && p->hops == 1 && is_group_addr(&p->dst); }
inline int is_dhcp(struct packet *p, int answer) {
  __u16 client = p->type == bpf_htons(0x86dd) ? 546 : 68, server = p->type == bpf_htons(0x86dd) ? 547 : 67;
  return p->protocol == 17 && p->sport == (answer ? server : client) && p->dport == (answer ? client : server);
}

// asks_dhcp: everybody on the link is asked, without options of IP.
inline int asks_dhcp(struct packet *p) { return is_dhcp(p, 0) && !p->options && is_group(&p->to) && is_everybody(&p->dst); }

inline struct rest *rest_of(struct addr *a) {
  struct prefix key = { 128, *a };
  return bpf_map_lookup_elem(&nsgd_rests, &key);
}
// stays: neighbour discovery for the link or the virtual networks. A router would carry other packets away unjudged.
inline int stays(struct packet *p) {
  if (!is_neighbour(p)) return 0;
  if (is_link_group(&p->dst) || is_link_local(&p->dst)) return 1;
  struct rest *to = rest_of(&p->dst);
  return to && to->near;
}
inline int is_router(__u32 interface, struct addr *a) {
  struct peer key = { interface, *a };
  return !!bpf_map_lookup_elem(&nsgd_routers, &key);
}

inline void learn_mac(__u32 interface, struct packet *p) {
  if (!bpf_map_update_elem(&nsgd_macs, &interface, &p->from, BPF_NOEXIST)) bpf_map_update_elem(&nsgd_stations, &p->from, &interface, BPF_ANY);
}
// may_use: a guest whose MAC is not known yet has neither the gateway's, nor a group's, nor that of another guest.
inline int may_use(__u32 interface, struct mac *from) {
  struct mac *gateway = bpf_map_lookup_elem(&nsgd_senders, &interface);
  if (is_group(from) || (gateway && same_mac(gateway, from))) return 0;
  __u32 *station = bpf_map_lookup_elem(&nsgd_stations, from);
  if (!station || *station == interface) return 1;
  __u32 other = *station;
  struct mac *theirs = bpf_map_lookup_elem(&nsgd_macs, &other); // it may have another by now, or be gone
  return !theirs || !same_mac(theirs, from);
}

// asks decides on a solicitation for a target. nsgd has read it where it is the gateway: nobody else may answer too.
inline int asks(__u32 interface, struct port *port, const struct addr *target) {
  return port->flags & GATEWAY && !owns(interface, target) ? drop(interface, FOR_GATEWAY) : pass(interface);
}

// arp is what a guest asks and answers: by its own addresses.
inline int arp(struct __sk_buff *s, __u32 interface, struct port *port, struct packet *p) {
  struct { __be16 hardware, protocol; __u8 lengths[2]; __be16 operation; __u8 mac[6]; __u8 ip[4]; __u8 target_mac[6]; __u8 target[4]; } h;
  if (bpf_skb_load_bytes(s, 14, &h, sizeof h)) return drop(interface, MALFORMED);
  if (h.hardware != bpf_htons(1) || h.protocol != bpf_htons(0x0800) || h.lengths[0] != 6 || h.lengths[1] != 4) return drop(interface, MALFORMED);
  struct mac sender = {};
  __builtin_memcpy(sender.byte, h.mac, 6);
  if (!same_mac(&sender, &p->from)) return drop(interface, SPOOFED_MAC);
  __u32 ip, asked;
  __builtin_memcpy(&ip, h.ip, 4);
  __builtin_memcpy(&asked, h.target, 4);
  set4(&p->src, ip);
  set4(&p->dst, asked);
  if (!ip) { // a probe: of another's address it would keep that from its owner
    struct owner *owner = bpf_map_lookup_elem(&nsgd_owners, &p->dst);
    if (owner && owner->port != interface) return drop(interface, SPOOFED_ADDRESS);
  } else {
    if (!uses(interface, port, &p->src)) return drop(interface, SPOOFED_ADDRESS);
    learn_mac(interface, p);
  }
  return h.operation == bpf_htons(1) ? asks(interface, port, &p->dst) : pass(interface);
}
// neighbour is a guest's neighbour discovery.
inline int neighbour(struct __sk_buff *s, __u32 interface, struct port *port, struct packet *p) {
  if (p->message == 134 || p->message == 137) return drop(interface, SERVER);
  int own = uses(interface, port, &p->src);
  if (!own && !is_zero(&p->src) && !is_link_local(&p->src)) return drop(interface, SPOOFED_ADDRESS);
  if (is_router(interface, &p->src)) return drop(interface, SPOOFED_ADDRESS);
  struct addr target = {};
  if ((p->message == 135 || p->message == 136) && bpf_skb_load_bytes(s, 62, &target, sizeof target)) return drop(interface, MALFORMED);
  if (p->message == 136 || (p->message == 135 && is_zero(&p->src))) { // says or asks whose the target is
    own = own || owns(interface, &target);
    if (is_router(interface, &target) || (!owns(interface, &target) && !is_link_local(&target))) return drop(interface, SPOOFED_ADDRESS);
  }
  if (own) learn_mac(interface, p);
  // Addresses of the link are the neighbours' own, but for the gateway's fe80::1234:5678:9abc.
  int gateway = target.word[0] == bpf_htonl(0xfe800000) && !target.word[1] && target.word[2] == bpf_htonl(0x1234) && target.word[3] == bpf_htonl(0x56789abc);
  if (p->message == 133 || (p->message == 135 && (gateway || !is_link_local(&target)))) return asks(interface, port, &target);
  return pass(interface);
}

// passes_out decides what a guest may send past nsgd: 1 yes, 0 nsgd judges, -1 dropped and counted.
inline int passes_out(struct __sk_buff *s, __u32 interface, struct packet *p, int own) {
  if (is_dhcp(p, 1)) { count(interface, SERVER); return -1; }
  if (asks_dhcp(p)) {
    if (own || is_zero(&p->src) || is_link_local(&p->src)) return 1;
    count(interface, SPOOFED_ADDRESS);
    return -1;
  }
  if (is_igmp(p)) {
    if (p->message != 0x12 && p->message != 0x16 && p->message != 0x17 && p->message != 0x22) { count(interface, SERVER); return -1; }
    if (own || is_zero(&p->src)) return 1;
    count(interface, SPOOFED_ADDRESS);
    return -1;
  }
  if (is_listener(p)) {
    if (p->message == 130) { count(interface, SERVER); return -1; }
    if (is_zero(&p->src) || is_link_local(&p->src)) return 1;
    count(interface, SPOOFED_ADDRESS);
    return -1;
  }
  return 0;
}

// hand gives what the NIC sends to its TUN and remembers whom it was sent to.
inline int hand(__u32 interface, struct port *port, struct packet *p) {
  struct peer key = { interface, p->dst };
  if (!is_group(&p->to)) {
    struct mac *known = bpf_map_lookup_elem(&nsgd_peers, &key);
    if (!known || !same_mac(known, &p->to)) bpf_map_update_elem(&nsgd_peers, &key, &p->to, BPF_ANY);
  }
  if (port->flags & FORWARDS && !owns(interface, &p->src)) {
    __u32 *known = bpf_map_lookup_elem(&nsgd_carried, &p->src);
    if (!known || *known != interface) bpf_map_update_elem(&nsgd_carried, &p->src, &interface, BPF_ANY);
  }
  count(interface, CAPTURED_OUT);
  return bpf_redirect(port->device, 0);
}

// other decides on what is not IP and is this host's own: the link's protocols pass.
inline int other(__u32 interface, struct packet *p) { return carries(p) ? drop(interface, ETHERTYPE) : pass(interface); }

// What the NIC sends: ingress of a guest's interface, egress of this host's.
SEC("tc") int nsgd_sends(struct __sk_buff *s) {
  __u32 interface = s->ifindex;
  struct port *port = bpf_map_lookup_elem(&nsgd_ports, &interface);
  struct packet p = {};
  if (ended()) return PASS;
  if (!port || port->flags & CLOSED) return DROP;
  int host = port->flags & THIS_HOST;
  if (ours(s, host)) return PASS;
  count(interface, SENT);
  if (frame(s, &p)) return drop(interface, MALFORMED);
  if (is_tagged(s, &p)) return drop(interface, VLAN);
  if (!is_ip(&p)) {
    if (host) return other(interface, &p);
    if (p.type != bpf_htons(0x0806)) return drop(interface, ETHERTYPE);
  } else if (network(s, &p)) {
    return drop(interface, MALFORMED);
  }
  if (host) {
    uses(interface, port, &p.src);
    if (stays(&p) || is_listener(&p) || is_igmp(&p) || asks_dhcp(&p)) return pass(interface);
    return hand(interface, port, &p);
  }
  struct mac *own = bpf_map_lookup_elem(&nsgd_macs, &interface);
  if (own ? !same_mac(own, &p.from) : !may_use(interface, &p.from)) return drop(interface, SPOOFED_MAC);
  if (!is_ip(&p)) return arp(s, interface, port, &p);
  if (is_neighbour(&p)) return stays(&p) ? neighbour(s, interface, port, &p) : drop(interface, SERVER);
  if (p.type == bpf_htons(0x86dd) && p.protocol != 58 && hides_neighbour(s, p.protocol)) return drop(interface, SERVER);
  int is_own = uses(interface, port, &p.src), way = passes_out(s, interface, &p, is_own);
  if (way) return way < 0 ? DROP : pass(interface);
  if (!own && is_own) learn_mac(interface, &p);
  return hand(interface, port, &p);
}

// passes_in: what may reach the NIC past nsgd. An answer of DHCP comes from this host, from near, or to all.
inline int passes_in(struct __sk_buff *s, __u32 interface, struct packet *p) {
  if (is_neighbour(p) || is_listener(p) || is_igmp(p)) return 1;
  if (!is_dhcp(p, 1)) return 0;
  if (p->type == bpf_htons(0x86dd)) return is_link_local(&p->src);
  if (p->dst.word[3] == 0xffffffff || !s->ingress_ifindex) return 1;
  struct rest *from = rest_of(&p->src);
  return from && from->near && owns(interface, &p->dst);
}

// What the NIC receives: egress of a guest's interface, ingress of this host's.
SEC("tc") int nsgd_receives(struct __sk_buff *s) {
  __u32 interface = s->ifindex;
  struct port *port = bpf_map_lookup_elem(&nsgd_ports, &interface);
  struct packet p = {};
  if (ended()) return PASS;
  if (!port || port->flags & CLOSED) return DROP;
  int host = port->flags & THIS_HOST;
  if (ours(s, !host)) return PASS;
  if (frame(s, &p)) return drop(interface, MALFORMED);
  if (is_tagged(s, &p)) return drop(interface, VLAN);
  if (p.type == bpf_htons(0x0806)) return pass(interface);
  if (!is_ip(&p)) return host ? other(interface, &p) : drop(interface, ETHERTYPE);
  if (network(s, &p)) return drop(interface, MALFORMED);
  if (is_neighbour(&p) && p.message == 134) {
    struct peer router = { interface, p.src };
    bpf_map_update_elem(&nsgd_routers, &router, &interface, BPF_ANY);
  }
  if (passes_in(s, interface, &p)) return pass(interface);
  if (is_group(&p.to) || is_group_addr(&p.dst)) return drop(interface, GROUP);
  if (!owns(interface, &p.dst)) { // a bridge floods
    struct mac *own = bpf_map_lookup_elem(&nsgd_macs, &interface);
    if (!(port->flags & FORWARDS) || !own || !same_mac(own, &p.to)) return drop(interface, NOT_ADDRESSED);
  }
  struct mac *known = bpf_map_lookup_elem(&nsgd_senders, &interface);
  if (!known || !same_mac(known, &p.from)) bpf_map_update_elem(&nsgd_senders, &interface, &p.from, BPF_ANY);
  struct rest *from = rest_of(&p.src);
  if (!from || !from->device) return drop(interface, NO_DEVICE);
  count(interface, CAPTURED_IN);
  return bpf_redirect(from->device, 0);
}

// send puts the header before a packet and gives it to the port's wire, or to its receiving side.
inline int send(struct __sk_buff *s, __u32 interface, int ingress, struct mac *to, struct mac *from) {
  struct ethernet e;
  __builtin_memcpy(e.to, to->byte, 6);
  __builtin_memcpy(e.from, from->byte, 6);
  e.type = s->protocol;
  if (bpf_skb_change_head(s, sizeof e, 0) || bpf_skb_store_bytes(s, 0, &e, sizeof e, 0)) return drop(interface, MALFORMED);
  s->mark = ingress ? mark() : 0;
  return bpf_redirect(interface, ingress ? BPF_F_INGRESS : 0);
}
// deliver sends to the NIC what nsgd let in.
inline int deliver(struct __sk_buff *s, __u32 interface) {
  struct port *port = bpf_map_lookup_elem(&nsgd_ports, &interface);
  if (!port) return DROP;
  struct mac *own = bpf_map_lookup_elem(&nsgd_macs, &interface), *sender = bpf_map_lookup_elem(&nsgd_senders, &interface);
  if (!own || !sender) return drop(interface, NO_MAC);
  count(interface, DELIVERED);
  return send(s, interface, port->flags & THIS_HOST, own, sender);
}

// What nsgd writes: ingress of its TUN devices. From a TUN of the rest it is what a NIC sends on.
SEC("tc") int nsgd_writes(struct __sk_buff *s) {
  __u32 device = s->ifindex;
  __u32 *behind = bpf_map_lookup_elem(&nsgd_devices, &device);
  if (!behind) return DROP;
  if (*behind) return deliver(s, *behind);
  struct addr src, dst;
  if (s->protocol == bpf_htons(0x0800)) {
    __u32 pair[2];
    if (bpf_skb_load_bytes_relative(s, 12, pair, 8, BPF_HDR_START_NET)) return drop(device, MALFORMED);
    set4(&src, pair[0]);
    set4(&dst, pair[1]);
  } else {
    struct addr pair[2];
    if (bpf_skb_load_bytes_relative(s, 8, pair, 32, BPF_HDR_START_NET)) return drop(device, MALFORMED);
    src = pair[0];
    dst = pair[1];
  }
  struct owner *owner = bpf_map_lookup_elem(&nsgd_owners, &src);
  __u32 *sender = owner ? &owner->port : bpf_map_lookup_elem(&nsgd_carried, &src);
  if (!sender) return drop(device, NO_SENDER);
  struct peer key = { *sender, dst };
  struct port *port = bpf_map_lookup_elem(&nsgd_ports, &key.interface);
  if (!port) return drop(device, NO_SENDER);
  struct mac *own = bpf_map_lookup_elem(&nsgd_macs, &key.interface), *peer = bpf_map_lookup_elem(&nsgd_peers, &key);
  if (!peer) peer = bpf_map_lookup_elem(&nsgd_senders, &key.interface);
  if (!own || !peer) return drop(key.interface, NO_MAC);
  count(key.interface, SENT_ON);
  return send(s, key.interface, !(port->flags & THIS_HOST), peer, own);
}

char _license[] SEC("license") = "Apache-2.0";
char nsgd_source[] SEC("nsgd.source") = SOURCE; // the checksum of this file, which a test compares
