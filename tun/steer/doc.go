// Package steer chooses the queue of a TUN device for each packet that the device sends, by a program that the kernel
// runs. Both ways of a flow are one worker's, as far as no address is translated between. Flows that send little, sparse
// ones, have queues of their own: a worker reads them first, so that a request does not wait behind superpackets.
//
// A flow that sends 16 KB at once, or more than 7.8 MB a second for longer, is a bulk flow, until it has been silent for a
// second. So its packets stay in order as long as no queue holds more than a burst when it becomes bulk, or more than a
// second when it no longer is. A flood, a gap between two processes, or a queueing discipline at the device, which holds
// packets behind the program, may swap some, as any network may. The program remembers flows in 16,384 places by interface and
// a hash with a random key. A sparse flow may share the place of a bulk one, and is served as that. So is one in whose name
// somebody else sends at the same interface, who is dropped later.
//
// The program counts packets of sparse flows for each worker, in memory that workers see: see Arrivals.
package steer
