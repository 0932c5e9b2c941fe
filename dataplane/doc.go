// Package dataplane is the engine: workers that read bursts of packets from the
// attachments' TUN queues, and the one pipeline that decides each of them.
//
// A packet walks through the steps of pipeline.go in the order of the file:
// decode, admit, flow, route, verdict, commit, write. Judge, the verdict step, is
// the same function for live packets and for every question that is answered
// without one (Verify).
package dataplane
