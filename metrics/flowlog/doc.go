// Package flowlog writes Azure's flow logs of what an engine carries: network security group
// flow logs of version 2 and virtual network flow logs of version 4.
//
// Nothing of it is on the path of a packet. A Recorder walks the flow table once an interval and
// gives each new flow a row B, and each that goes on a row C every fifth interval; the flow table
// hands over every flow that has ended, with its final counters, for the row E (ended.go). Denied
// packets come from the engine's packet events (denied.go). Counters in rows are what was
// added since the flow's last row, so a flow's rows add up to its packets and bytes exactly; bytes
// count from the IP header on, as all counters of nsgd do.
//
// A row belongs to an end of its flow (book.go): the sender's NIC logs it as O, the
// receiver's as I, each with the addresses that this end sees, under the last of its NSGs that
// allowed it, or the one that denied it. Rows gather by rule and MAC address (record.go), and
// once an interval, or earlier when there are many, become records that a sink (sink.go)
// appends to the hour's file (file.go, store.go) or prints.
//
// What is lost is dropped oldest first and counted: ended flows and denied packets that come
// faster than they are logged, and records that a full disk or a reader that does not read
// leaves waiting.
package flowlog
