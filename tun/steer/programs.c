//go:build ignore

// The program that chooses the queue of a TUN device for a packet that the device sends.
//
// SPDX-License-Identifier: Apache-2.0
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PLACES 16384
#define WORKERS 128        // half of the queues that a device may have
#define BURST 16384        // bytes that a sparse flow may send at once
#define DRAIN 7            // one byte in so many powers of two of nanoseconds is forgotten: 7.8 MB a second
#define HOLD 1000000000ULL // nanoseconds of silence after which a bulk flow is none any more

struct settings { __u32 workers, key, step; };
struct flow { __u64 seen, bulk_until, level; }; // nanoseconds of the monotonic clock, and bytes
struct arrivals { __u64 packets, rest[7]; };    // a cache line

#define MAP(name, k, v, max, flags) \
  struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, k); __type(value, v); __uint(max_entries, max); __uint(map_flags, flags); } name SEC(".maps")
MAP(nsgd_settings, __u32, struct settings, 1, 0);
MAP(nsgd_flows, __u32, struct flow, PLACES, 0); // two processors may write to one at a time: a byte more or less is no matter
MAP(nsgd_arrivals, __u32, struct arrivals, WORKERS, BPF_F_MMAPABLE); // packets of sparse flows, before they are in a queue

char nsgd_source[] SEC("nsgd.source") = SOURCE; // the checksum of this file, which a test compares

// mixed spreads the bits of a word.
static __always_inline __u32 mixed(__u32 x)
{
  x = (x ^ x >> 16) * 0x7feb352d;
  x = (x ^ x >> 15) * 0x846ca68b;
  return x ^ x >> 16;
}

static __always_inline __u32 folded(const __u32 *w)
{
  return mixed(mixed(mixed(w[0]) + w[1]) + w[2]) + w[3];
}

SEC("socket")
int nsgd_steer(struct __sk_buff *skb)
{
  __u32 zero = 0, w[10] = {}, src, dst, at, protocol, ports = 0;
  struct settings *s = bpf_map_lookup_elem(&nsgd_settings, &zero);
  if (!s || bpf_skb_load_bytes(skb, 0, w, 20))
    return 0;
  if ((w[0] & bpf_htonl(0xf0000000)) == bpf_htonl(0x40000000)) {
    src = w[3];
    dst = w[4];
    at = (bpf_ntohl(w[0]) >> 24 & 0xf) * 4;
    protocol = bpf_ntohl(w[2]) >> 16 & 0xff;
    if (w[1] & bpf_htonl(0x3fff)) // fragments of a datagram stay together
      protocol = 0;
  } else {
    if (bpf_skb_load_bytes(skb, 0, w, 40))
      return 0;
    src = folded(w + 2);
    dst = folded(w + 6);
    at = 40;
    protocol = bpf_ntohl(w[1]) >> 8 & 0xff;
  }
  if ((protocol == 6 || protocol == 17) && bpf_skb_load_bytes(skb, at, &ports, 4))
    ports = 0;
  ports = bpf_ntohl(ports);
  // The same both ways. Ports that follow one another are spread evenly, as those of parallel connections are.
  __u32 both = mixed(mixed(src ^ s->key) + mixed(dst ^ s->key)) + ((ports >> 16) + (ports & 0xffff)) * s->step;
  __u32 worker = (__u64)both * s->workers >> 32, place = mixed(both ^ mixed(src + s->key) ^ ports ^ mixed(skb->ifindex)) & (PLACES - 1);
  struct flow *f = bpf_map_lookup_elem(&nsgd_flows, &place);
  if (!f)
    return worker;
  __u64 now = bpf_ktime_get_ns(), seen = f->seen, level = f->level;
  __u64 gone = now > seen ? (now - seen) >> DRAIN : 0; // another processor may have seen a later packet
  level = (level > gone ? level - gone : 0) + skb->len;
  if (level > BURST)
    level = BURST;
  if (level == BURST || now < f->bulk_until)
    f->bulk_until = now + HOLD;
  f->level = level;
  f->seen = now;
  if (now < f->bulk_until)
    return worker;
  struct arrivals *a = bpf_map_lookup_elem(&nsgd_arrivals, &worker);
  if (a)
    __sync_fetch_and_add(&a->packets, 1);
  return worker + s->workers;
}

char _license[] SEC("license") = "Apache-2.0";
