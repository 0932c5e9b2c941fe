// Package dataplane is the engine: workers that read bursts of packets from the attachments' TUN queues,
// decide about each packet, and write it to another attachment.
//
// The way of a packet, file by file. What belongs to the packet is one value, its passage; the worker keeps
// queues, buffers and counters.
//
//	worker.go     burst     takes the clock, reads groups of packets (read), takes the snapshot
//	              prepare   decodes the group (virtio.Decode), counts it as received and prefetches its flows
//	passage.go    carry     takes one packet through the steps below and counts why it was dropped
//	              steps     admits it: who has sent it (verdict.Admit)
//	fragments.go  fragment  a fragment takes the way of its datagram's first one
//	passage.go    destination finds its flow: the usual case, which goes on at rewrite.go
//	              icmpError finds the flow that an ICMP error quotes
//	rejudge.go    rejudge   judges a live flow by the rules of now, if the policy asks for that
//	begin.go      begin     without a flow: decides about the packet (verdict.Decision)
//	              commit    records the flow that begins
//	apart.go      onward    where answers take another way, passes at the receiver's end by itself
//	fabric.go     route     where hosts share a policy: zones of other hosts' ends, and the ways there
//	rewrite.go    translate changes addresses and ports, where the flow has a translation
//	write.go      write     hands the packet to its queue, or appends it to its flow's train
//
// carry, steps and destination in passage.go are where a packet comes back to between these files. Its bytes
// are the worker's buffer until they are read, then the slot's frame: a virtio-net header and an IP packet.
// What they say is the slot's packet. Decisions are verdict's: the engine has no composition of its own.
//
// The other files are not on a packet's way, unless somebody watches (observe.go): engine.go and reload.go
// make and change the engine, carrier.go drives it without devices, reset.go ends silent connections.
package dataplane
