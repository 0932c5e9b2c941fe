// Package top is the live view of a running daemon: rules, flows, talkers and drops that lead,
// in a terminal (Run) or once (WriteTable).
//
// A Model asks for one reading at a time through an Asker, draws it, and asks again. It
// knows nothing of terminals but their size, so a test drives it with messages.
package top
