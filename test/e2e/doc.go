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
package e2e
