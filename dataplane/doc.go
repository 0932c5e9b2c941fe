// Package dataplane is the engine: workers that read bursts of packets from the
// attachments' TUN queues, and the one pipeline that decides each of them.
//
// A burst is read and decoded in groups (worker.go). Each packet then walks through the
// steps of pipeline.go in the order of the file: admit, flow, route, verdict, commit, write; a
// fragment by way of fragments.go. Judge, the verdict step, is the same function for
// live packets and for every question that is answered without one (Verify).
package dataplane
