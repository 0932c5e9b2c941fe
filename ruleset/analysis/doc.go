// Package analysis answers questions about all packets at once: which packets do two lists of rules
// treat differently, which does a chain of lists allow, and what does each rule of a list do there.
// Answers are exact. Each names the deciding rules, the packets as boxes (sources, destinations,
// protocol, ports), and a witness: one packet that shows it.
//
// # Which function
//
// A List is rules in priority order, and a Chain is lists that are asked one after the other. Compare, Reach
// and Roles answer with sets. Equivalent and Always answer with yes, or with one packet that says no. Mergeable
// finds rules that could be one. All are safe for concurrent use; a List can be asked as often as needed.
//
// # Packets
//
// A packet has what package classifier looks at: two addresses of one family, a protocol, and what the
// protocol gates. TCP and UDP have both ports. ICMP and ICMPv6 have a type, which rules see as the
// destination port. ESP, AH and all other protocols have no ports: only rules for all ports match.
//
// # How it works
//
// A changed rule is one that is not in a longest common sequence of both lists. Whatever the lists
// decide differently, a changed rule decides it in one of them. So Compare looks only at the
// packets that a changed rule matches, one such region after the other.
//
// In a region, the rules' borders divide each field into classes: values that the same rules
// match. A decision diagram asks field after field, those with the fewest classes first. A state is the
// bitmap of the rules that are still alive, and equal states are walked once. Four cuts keep the
// diagram small:
//
//   - a rule that matches all that is left hides the rules of its list behind it;
//   - a list that denies all that is left hides the lists behind it;
//   - a state in which both sides can only allow, or only deny, holds no answer;
//   - nor does one in which both sides have rules that are alike in all that is left.
//
// Roles asks for each rule whether others leave a part of a box to it. The fields of the whole list are
// divided once, and bitmaps of rules say which ones a rule meets. Of those, each takes its packets out of the box,
// until the box is empty or none meets it any more. The first part that is left ends the search.
//
// # Bounds
//
// A question may make Options.MaxStates states, or steps of a search. Where they don't suffice, the answer lists the place as
// not decided; the rest of the answer stands. Nothing is guessed.
//
// # What it costs
//
// Comparing ClassBench lists after three edits takes 3 to 9 ms with 1,000 rules and 15 ms with 4,000;
// the roles of their rules take 11 to 28 ms and 58 to 97 ms (README.md has the command). A service tag is sorted once for all rules that share its slice.
package analysis
