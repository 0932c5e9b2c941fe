// Package cluster has many hosts carry one policy, by etcd.
//
// Store is a cluster's part of etcd: generations, the head that says which one is current, the offer of a new one,
// hosts, claims of network interfaces and VXLAN identifiers. Apply writes a generation and follows it until every host
// carries it. Agent is a host: it has a lease, claims its network interfaces, prepares what is offered and carries what
// is current. README.md lists the keys.
//
// What etcd holds was written by others: it is bounded, and checked by hashes and signatures, before it is used.
package cluster
