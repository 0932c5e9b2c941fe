// Package replay says what a policy would have done to the packets of captures. The engine itself
// decides, one packet at a time and with the capture's times for its clock, so that flows
// begin, go on and time out as they would have then.
//
// With NICs chosen, a packet is one of theirs when its source or destination is an address of
// theirs; only their own rules are asked, as nsgctl verify does. Without, the capture is one
// of nsgctl capture: its interfaces are the daemon's attachments, and the whole path is judged.
package replay
