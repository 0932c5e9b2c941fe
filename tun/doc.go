// Package tun is where packets enter and leave nsgd: TUN devices inside network
// namespaces, the namespaces themselves, and the waiting for both.
//
// A [Device] has one [Queue] for each worker. Every backend moves the same bytes: a virtio-net
// [Header] of 10 bytes and one IP packet. So a packet read from any device can be written to
// any other without a copy:
//
//   - offload: the kernel hands over superpackets of up to 64 KiB, with checksums and
//     segmentation left to do, and takes them back that way ([TSO], [USO]);
//   - plain: one wire packet at a time, for kernels or users that refuse the header ([Off]).
//
// Package tuntest has a third backend for tests: rings in this process.
//
// A [Poller] waits for the queues of one worker. A [State] guards a state directory: one daemon
// runs at a time and removes the namespaces that it made, and those of an earlier run that was
// killed.
//
// Devices are not persistent: the kernel removes them when their descriptors close, also those
// of a killed process.
package tun
