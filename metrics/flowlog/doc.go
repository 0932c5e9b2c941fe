// Package flowlog writes Azure's flow logs of the traffic that an engine carries: network
// security group flow logs of version 2 and virtual network flow logs of version 4.
//
// No part of it runs on the path of a packet. A Recorder walks the flow table once an interval.
// It gives each new flow a row B, and each live flow a row C every fifth interval. The flow table
// hands over every ended flow with its final counters for the row E (ended.go). Denied packets
// come from the engine's packet events (denied.go). Counters in rows are the packets and bytes
// since the flow's last row, so that a flow's rows add up to its total exactly. Bytes count from
// the IP header on, as in all counters of nsgd.
//
// A row belongs to an end of its flow (router.go): the sender's NIC logs it as O, the receiver's
// as I. Each end has the addresses that it sees itself, and the rule of its last NSG that allowed
// the flow, or the rule that denied it. Rows gather by rule and MAC address (record.go). Once an
// interval, or earlier when there are many, they become records. A sink (sink.go) appends a
// record to the hour's file (file.go, store.go) or prints it.
//
// With Options.Slabs all of this goes on in the next process, even if this one is killed. What a flow's rows have
// told is its note in the flow table. Ended flows wait in a slab, and a write-ahead log (wal.go) has the rows that no
// file has yet. A restart gathers them again (resume.go). Denied packets that wait for their rows, and those that share a
// row, end with the process.
//
// Three bounds lose rows, and each loss is counted. Flows that end faster than they are logged
// have no last row. When records wait too long for a full disk or a slow reader, the oldest are
// dropped. Rows of denied packets have a share of the queue and of the folder; the packets beyond
// it have no row, so that a flood of them leaves room for all other rows.
package flowlog
