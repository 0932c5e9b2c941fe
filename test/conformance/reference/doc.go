// Package reference is a second opinion about IP flow verify: from ARM JSON to a verdict
// in the most obvious way, with strings, lists and loops. It is written from what Azure
// documents and shares nothing with nsgd, so that the two can only agree by both being
// right, or by both reading the documents wrongly.
//
// It reads valid policies only: the nested and the flattened form, rules with one of their
// forms a side, references by id.
package reference
