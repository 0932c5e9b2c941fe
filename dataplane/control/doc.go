// Package control answers what an operator asks: what would happen to a packet, which
// rules hold for a NIC, what was counted, which flows live; and it reloads the policy.
//
// The questions about a policy (Answerer) have one implementation on a
// topology.Snapshot. A running daemon gives it by HTTP and JSON on a unix socket
// (Server, Client); without a daemon it works on policy files (Offline). Nothing here
// makes the packet path wait: answers read a snapshot, atomic counters and the flow
// table's lock-free walk.
//
// The socket speaks, all under /v1:
//
//	GET  /v1/status                                      Status
//	GET  /v1/effective?networkInterface=N                azure.EffectiveNetworkSecurityGroupListResult
//	GET  /v1/rules?networkSecurityGroup=N&unused=true    RuleList
//	GET  /v1/flows?networkInterface=N&address=A&protocol=P&limit=L   FlowList
//	GET  /v1/top?view=V&order=O&reverse=true&by=B&filter=F&limit=L   TopReading
//	POST /v1/verify?path=true                            NDJSON in, NDJSON out, see VerifyStream
//	POST /v1/reload                                      Reloaded
//	POST /v1/diagnose                                    azure.NetworkConfigurationDiagnosticParameters in, its Response out
//	GET  /v1/securityGroupView?target=T                  azure.SecurityGroupViewResult
//	GET  /v1/tags                                        TagList
//	GET  /v1/tag?name=T&subnet=S&networkInterface=N      TagDetails
//	GET  /v1/trace?filter=F&denied=true&count=N&perSecond=N&sample=N      NDJSON out, a Trace a line
//	GET  /v1/capture?filter=F&denied=true&count=N&perSecond=N&sample=N&snapLen=N   pcapng out
//
// Trace and capture go on until there are count packets or the client goes away; as a POST also until
// the client ends its body, and then the last words are for it: the summary, which a capture has
// in the trailers Nsgd-Packets, Nsgd-Lost and Nsgd-Skipped.
//
// A refusal is an Error with a status other than 200.
package control
