// Package e2e drives the real programs with real sockets: each sentence of
// Azure's document on how network security groups evaluate traffic is a subtest
// here, over IPv4 and IPv6, and so is what nsgd promises about state, counters, reloads
// and crashes.
//
// The tests run in mount, network and PID namespaces of their own, so names and
// ports are free whatever the machine runs, and nothing survives them, not even
// when they crash. They need root and /dev/net/tun and are skipped otherwise.
//
// NSGD_E2E_BINARIES names a folder with nsgd and nsgctl to test; without it they
// are built. NSGD_E2E_RACE=1 builds them with the race detector.
//
// One test holds nsgd against the kernel: random policies are loaded into it as ARM JSON
// and into a router with connection tracking as nftables, and the same packets go
// through both. By default that is always the same 200 policies;
//
//	NSGD_E2E_KERNEL_POLICIES=1000 scripts/e2e -test.run TestKernel
//
// takes others each time and prints the NSGD_E2E_KERNEL_SEED that repeats them. What the
// two may differ in stands in kernel_difference_test.go. Another one does so with random
// segments of TCP connections, in, out and at the edges of their windows: 300 connections, or
// NSGD_E2E_KERNEL_CONNECTIONS others, and kernel_window_difference_test.go.
package e2e
