// Package ruleset holds network security groups as data: rules, the six default
// rules, tags, application security groups, limits, and validation with Azure's
// error codes. It knows nothing of files, packets, TUN devices or workers and
// can be used as a library. Package arm reads and writes its JSON forms, package
// classifier compiles its rules.
package ruleset
