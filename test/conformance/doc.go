// Package conformance holds what nsgd must answer, as data: cases/*.yaml, one topic
// a file, each case with the fact of facts.yaml that its expectation comes from.
// FACTS.md lists the facts and the cases that hold them.
//
// A case is a policy and what is expected of it:
//
//	verdicts  an IP flow verify question a line and its answer
//	path      the same with the other end's groups
//	script    packets, reloads and time, and what becomes of each packet
//	faults    what validate finds
//	answers   a run of nsgctl and a part of the JSON that it prints
//
// The tests here put verdicts to the compiled policy and to the built nsgctl,
// scripts to the engine with devices in memory and a clock of their own, and
// faults and answers to nsgctl. Cases marked wire also go through a running nsgd, in
// test/e2e.
//
// # Policies
//
// A policy is one of policies/*.json, or a document of its own, in ARM's JSON. A case
// changes it by rules, the user rules of each NSG, and by resources, which
// replace those of the same type and name or are added. A rule is ARM's JSON too, or a
// line (see Rule).
package conformance
