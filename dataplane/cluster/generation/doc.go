// Package generation holds one state of a cluster's policy: its files and the settings that change their meaning.
//
// A Bundle is packed into an archive that is the same wherever it is made. The archive is compressed and cut into
// chunks, which are named by their hashes. A Manifest names the chunks; it may be signed. A Cache keeps generations on
// disk, so that a host can start without its cluster.
//
// Whatever comes from elsewhere is bounded before it is used: compressed bytes, expanded bytes, files, names.
package generation
