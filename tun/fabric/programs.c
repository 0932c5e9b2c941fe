//go:build ignore

// The programs of tc between nsgd's TUN devices and the device of VXLAN. Addresses are IPv6, or IPv4 in IPv6.
//
// SPDX-License-Identifier: Apache-2.0
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define inline static __always_inline
#define DROP TC_ACT_SHOT

// Indexes of struct counts: count.go has their names, in the same order.
enum { SENT, RECEIVED,
       MALFORMED, GROUP, NO_ROUTE, TOO_BIG, NO_TUNNEL,
       UNKNOWN_VNI, UNKNOWN_SOURCE, OWN_SOURCE, FORGED, COUNTS };

#define NO_VNI 0xffffffff // key of the counters of packets that no tunnel has
#define HOPS 64           // of outer packets
#define QUOTED 96         // bytes of a packet that didn't fit: two headers and some more
#define MANY 1            // flag of struct sender: members say who may send, too

struct addr { __u32 word[4]; };
struct network { __u32 bits; __u32 id; struct addr addr; };                        // id: VNI, and FAMILY6
struct sender { struct addr host; struct network prefix; __u32 flags; };           // host: 0: this one, so that nobody else sends it
struct member { struct network prefix; struct addr host; };
struct tunnel { __u32 device; __u32 mtu; };                                        // device: the TUN
struct settings { __u32 device; __u32 is6; struct addr underlay; };                // device: VXLAN's; is6: the underlay is IPv6
struct counts { __u64 of[COUNTS]; };
struct refused { __u32 device; __u32 mtu; __u8 packet[QUOTED]; };                  // what the sender is told of

#define FAMILY6 (1 << 24) // a VNI has 24 bits: without it ::/0 would hold IPv4's addresses

#define MAP(name, kind, k, v, max, more) \
  struct { __uint(type, kind); __type(key, k); __type(value, v); __uint(max_entries, max); __uint(map_flags, more); } name SEC(".maps")
// Twice what a state may have: a new one comes before the old one goes.
MAP(fabric_settings, BPF_MAP_TYPE_ARRAY, __u32, struct settings, 1, 0);
MAP(fabric_devices, BPF_MAP_TYPE_HASH, __u32, __u32, 8192, 0);                             // TUN: its VNI
MAP(fabric_tunnels, BPF_MAP_TYPE_HASH, __u32, struct tunnel, 8192, 0);                     // by VNI
MAP(fabric_routes, BPF_MAP_TYPE_LPM_TRIE, struct network, struct addr, 1048576, BPF_F_NO_PREALLOC);    // destination: its host
MAP(fabric_senders, BPF_MAP_TYPE_LPM_TRIE, struct network, struct sender, 1048576, BPF_F_NO_PREALLOC); // source: who sends it
MAP(fabric_members, BPF_MAP_TYPE_HASH, struct member, __u32, 131072, BPF_F_NO_PREALLOC);
MAP(fabric_counts, BPF_MAP_TYPE_PERCPU_HASH, __u32, struct counts, 8193, BPF_F_NO_PREALLOC);               // by VNI
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 16); } fabric_refused SEC(".maps");

// packet is what an inner header says.
struct packet {
  struct addr src, dst;
  __u32 is6;
  __u32 whole;   // routers may not fragment it
  __u32 headers; // bytes of the network's and the transport's header, of superpackets
};

// count counts what became of a packet of a tunnel.
inline void count(__u32 vni, __u32 what) {
  struct counts *c = bpf_map_lookup_elem(&fabric_counts, &vni);
  if (c && what < COUNTS) c->of[what]++;
}
inline int drop(__u32 vni, __u32 why) { count(vni, why); return DROP; }
inline void set4(struct addr *a, __u32 ip) { a->word[0] = a->word[1] = 0; a->word[2] = bpf_htonl(0xffff); a->word[3] = ip; }
inline int is_zero(const struct addr *a) { return !a->word[0] && !a->word[1] && !a->word[2] && !a->word[3]; }
inline int is_same(const struct addr *a, const struct addr *b) {
  return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] && a->word[3] == b->word[3];
}
// is_group: multicast, of IPv4 also broadcast and what is reserved.
inline int is_group(const struct packet *p, const struct addr *a) {
  return p->is6 ? (a->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000) : (a->word[3] & bpf_htonl(0xe0000000)) == bpf_htonl(0xe0000000);
}

// transport finds the length of the headers of TCP or UDP.
inline void transport(struct __sk_buff *s, struct packet *p, __u8 protocol, __u32 at) {
  __u8 offset = 0;
  p->headers = at + 8;
  if (protocol == 6 && !bpf_skb_load_bytes(s, at + 12, &offset, 1)) p->headers = at + (offset >> 4) * 4;
}

// read reads the inner header. It fails on anything but IP.
inline int read(struct __sk_buff *s, struct packet *p) {
  if (s->protocol == bpf_htons(0x0800)) {
    struct { __u8 version, tos; __be16 len, id, fragment; __u8 ttl, protocol; __be16 sum; __u32 src, dst; } h;
    if (bpf_skb_load_bytes(s, 0, &h, sizeof h) || h.version < 0x45 || h.version > 0x4f) return -1;
    set4(&p->src, h.src);
    set4(&p->dst, h.dst);
    p->whole = h.fragment & bpf_htons(0x4000);
    transport(s, p, h.protocol, (h.version & 15) * 4);
    return 0;
  }
  if (s->protocol != bpf_htons(0x86dd)) return -1;
  struct { __u32 flow; __be16 len; __u8 next, hops; struct addr src, dst; } h;
  if (bpf_skb_load_bytes(s, 0, &h, sizeof h) || (h.flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000)) return -1;
  p->is6 = p->whole = 1;
  p->src = h.src;
  p->dst = h.dst;
  transport(s, p, h.next, 40); // behind extension headers it is longer: the outer packet is fragmented then
  return 0;
}
inline struct network network_of(const struct packet *p, __u32 vni, const struct addr *a) {
  struct network n = { 160, p->is6 ? vni | FAMILY6 : vni, *a };
  return n;
}
inline struct settings *settings(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&fabric_settings, &zero);
}

// tell has the sender told that its packet didn't fit. A full buffer loses the message: the sender tries again.
inline void tell(struct __sk_buff *s, __u32 mtu) {
  struct refused r = { s->ifindex, mtu };
  if (!bpf_skb_load_bytes(s, 0, r.packet, QUOTED)) bpf_ringbuf_output(&fabric_refused, &r, sizeof r, 0);
}

// What nsgd sends to other hosts: ingress of a TUN.
SEC("tc") int fabric_sends(struct __sk_buff *s) {
  __u32 device = s->ifindex;
  struct settings *set = settings();
  __u32 *of = bpf_map_lookup_elem(&fabric_devices, &device);
  if (!set || !of) return DROP;
  __u32 vni = *of;
  struct tunnel *tunnel = bpf_map_lookup_elem(&fabric_tunnels, &vni);
  struct packet p = {};
  if (!tunnel || tunnel->device != device) return drop(NO_VNI, NO_TUNNEL);
  if (read(s, &p)) return drop(vni, MALFORMED);
  if (is_group(&p, &p.dst)) return drop(vni, GROUP);
  struct network to = network_of(&p, vni, &p.dst);
  struct addr *host = bpf_map_lookup_elem(&fabric_routes, &to);
  if (!host) return drop(vni, NO_ROUTE);
  // What may be fragmented is fragmented outside. The kernel doesn't do that over IPv6.
  if ((p.whole || set->is6) && (s->gso_size ? p.headers + s->gso_size : s->len) > tunnel->mtu) {
    tell(s, tunnel->mtu);
    return drop(vni, TOO_BIG);
  }
  struct bpf_tunnel_key key = { .tunnel_id = vni, .tunnel_ttl = HOPS };
  __u64 flags = BPF_F_ZERO_CSUM_TX;
  if (set->is6) {
    flags = BPF_F_TUNINFO_IPV6; // whose UDP has a checksum
    __builtin_memcpy(key.remote_ipv6, host, 16);
    __builtin_memcpy(key.local_ipv6, &set->underlay, 16);
  } else {
    key.remote_ipv4 = bpf_ntohl(host->word[3]);
    key.local_ipv4 = bpf_ntohl(set->underlay.word[3]);
  }
  if (bpf_skb_set_tunnel_key(s, &key, sizeof key, flags)) return drop(vni, NO_TUNNEL);
  count(vni, SENT);
  return bpf_redirect(set->device, 0);
}

// check says whether the host at the tunnel's other end may send the packet's source: RECEIVED, or the reason.
inline int check(const struct packet *p, __u32 vni, const struct addr *host) {
  struct network from = network_of(p, vni, &p->src);
  struct sender *sender = bpf_map_lookup_elem(&fabric_senders, &from);
  if (!sender) return UNKNOWN_SOURCE;
  if (is_same(&sender->host, host)) return RECEIVED;
  if (is_zero(&sender->host)) return OWN_SOURCE;
  struct member key = { sender->prefix, *host };
  return sender->flags & MANY && bpf_map_lookup_elem(&fabric_members, &key) ? RECEIVED : FORGED;
}

// What comes from other hosts: ingress of VXLAN's device.
SEC("tc") int fabric_receives(struct __sk_buff *s) {
  struct settings *set = settings();
  struct bpf_tunnel_key key = {};
  struct packet p = {};
  struct addr host;
  if (!set) return DROP;
  if (bpf_skb_get_tunnel_key(s, &key, sizeof key, set->is6 ? BPF_F_TUNINFO_IPV6 : 0)) return drop(NO_VNI, NO_TUNNEL);
  if (set->is6) __builtin_memcpy(&host, key.remote_ipv6, 16);
  else set4(&host, bpf_htonl(key.remote_ipv4));
  __u32 vni = key.tunnel_id;
  struct tunnel *tunnel = bpf_map_lookup_elem(&fabric_tunnels, &vni);
  if (!tunnel) return drop(NO_VNI, UNKNOWN_VNI);
  if (read(s, &p)) return drop(vni, MALFORMED);
  if (is_group(&p, &p.src) || is_group(&p, &p.dst)) return drop(vni, GROUP);
  int said = check(&p, vni, &host);
  count(vni, said);
  return said == RECEIVED ? bpf_redirect(tunnel->device, 0) : DROP;
}

char _license[] SEC("license") = "Apache-2.0";
char fabric_source[] SEC("nsgd.source") = SOURCE; // the checksum of this file, which a test compares
