// Package topology turns ARM objects and attachments into an immutable Snapshot:
// which address is behind which attachment, which network security groups stand
// before it in which order, and their compiled rules. A Snapshot is built off the
// packet path, swapped whole, and never changed after Build returns; everything
// reachable from it is safe for concurrent use.
package topology
