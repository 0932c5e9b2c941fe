// Package template evaluates ARM templates: parameters, variables, loops, conditions,
// nested and linked deployments, and the expressions ("[...]") within them.
//
// Evaluate returns the document with its resources as Azure would get them. It never
// fails as a whole: an expression that can't be evaluated stays as it is written, and
// Result.Problems tells where it stands and what it lacks. Evaluation is lazy: what
// does not depend on a missing parameter is not touched by it.
//
// # What only Azure knows
//
// Nothing is asked from Azure. subscription(), resourceGroup(), deployment() and
// environment() answer from Options, but for names and tags. reference() of a resource of the template has
// that resource's properties as they are evaluated, and what Azure derives from them
// by a documented rule: a storage account's primaryEndpoints, a public address's
// dnsSettings.fqdn, a key vault's vaultUri. Everything else, and list*(), comes from
// Options.Runtime or is a problem.
//
// uniqueString gives Azure's value in the eight published examples of the tests; a ninth, of
// a long resource id, came out otherwise. guid follows Azure's documentation. newGuid and
// utcNow are the same within an evaluation; newGuid depends on the deployment's and the parameter's names
// alone, so that reading a file again gives the same policy.
//
// # Values
//
// Values are those of encoding/json with numbers as json.Number. Objects have no
// order: string() and items() write and list fields in the order of their names.
//
// # Bounds
//
// Templates may come from anybody: limits.go has the caps, and errors name them.
package template
