// Package topology turns a policy and a list of attachments into an immutable
// Snapshot. It says which address is behind which attachment, which network
// security groups judge that address and in which order, and which way a packet
// takes. A Snapshot is built off the packet path and swapped whole. Nothing that
// is reachable from it changes after Build, except the state of health probes
// and what Follow sets. It is safe for concurrent use.
//
// The files, in reading order:
//
//	snapshot.go    what a Snapshot holds: attachments, endpoints, stages, groups, tables
//	build.go       Options and the steps that build a Snapshot
//	network.go     step 1: virtual networks, their peers and gateways
//	groups.go      step 2: groups of rules, and what tags mean to them
//	endpoints.go   step 3: the endpoints of NICs and subnets with their stages
//	compile.go     step 4: rules to prefixes; steps 8 and 9: slots and compiled tables
//	attach.go      step 5: attachments, and the endpoints behind them
//	fabric.go      what fabrics lead to: ends that are attached to other hosts
//	fabric_place.go  step 5 for fabrics
//	routetable.go  step 6: what Route searches
//	isolated.go    step 7 for Options.Isolated: NICs judged by themselves
//	frontend*.go   step 7 otherwise: what public addresses and load balancers lead to
//	egress.go      step 7 otherwise: how packets leave to the internet
//	snatports.go   which ports of a shared address flows may take
//	admit.go       which endpoint sends from an address
//	fabric_arrive.go  the same from fabrics, and by which a packet leaves
//	routes.go      where a route leads
//	way.go         the route and the translation of a flow's first packet, and its replies
//	kept.go        whether a reload keeps the translation of a live flow
//	platform.go    Azure's platform services
//	subscription.go  whether TCP port 25 is blocked
//	probe.go       health probes and their state
//	registry.go    the slots by which counters and flow records know rules
//	follow.go      what a snapshot takes over from the one before it
package topology
