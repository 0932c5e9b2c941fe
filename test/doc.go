// Package test holds what is tested across packages: the architecture's arrows
// here, the end-to-end tests in namespaces below e2e.
package test
