// Package reference is a second opinion about IP flow verify. It goes from ARM JSON to a verdict
// in the most obvious way, with strings, lists and loops. It follows Azure's documents and shares
// no code with nsgd. So the two agree only if both are right, or both misread the documents.
//
// It reads valid policies only, in the nested and the flattened form. A rule has one form a side,
// and references are ids.
package reference
