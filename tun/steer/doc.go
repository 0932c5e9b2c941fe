// Package steer chooses the queue of a TUN device for each packet that the device sends, by a program that the kernel
// runs. Both ways of a flow are one worker's, as far as no address is translated between. Flows that send little, sparse
// ones, have queues of their own: a worker reads them first, so that a request does not wait behind superpackets.
//
// A flow that sends more than 16 KB at once, or more than 7.8 MB a second for longer, is a bulk flow, until it has sent less
// for 100 ms. What it has sent before is read by then, so its packets stay in order. The program remembers flows in 16,384
// places by a hash with a random key: a sparse flow may share the place of a bulk one, and is served as that.
package steer
