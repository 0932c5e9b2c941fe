// Package conformance holds the answers that nsgd must give, as data: cases/*.yaml, one topic
// a file. Each case names the fact of facts.yaml that its expectation comes from. FACTS.md
// lists the facts and their cases.
//
// A case is a policy and what is expected:
//
//	verdicts  questions of IP flow verify with their answers, one a line
//	path      the same, with the other end's groups
//	script    packets, reloads and time, and where each packet goes
//	faults    what validate finds
//	answers   a run of nsgctl and a part of the JSON that it prints
//
// The tests here check verdicts with the compiled policy and with the built nsgctl. They check
// scripts with an engine on memory devices and a fake clock, and faults and answers with nsgctl.
// Cases marked wire also go through a running nsgd, in test/e2e.
//
// # Policies
//
// A policy is one of policies/*.json, or the case's own document, in ARM's JSON. A case changes
// it by rules, which are the user rules of each NSG, and by resources. A resource replaces the
// one of its type and name, or is added. A rule is ARM's JSON too, or a line (see Rule).
package conformance
