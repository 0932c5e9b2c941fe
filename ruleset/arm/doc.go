// Package arm reads and writes the JSON forms of Azure Resource Manager: network
// security groups, virtual networks, network interfaces and application security
// groups in, effective rules and IP flow verify questions and answers out.
//
// Load takes documents as Azure's own tools give them: the nested form of the
// REST API and of templates ("properties"), the flattened form of "az ... show",
// one object, a list, a page ({"value": []}) or a template's "resources" with
// inline, child and nested resources. Field names and enumerations are taken in
// any case, so PowerShell's spelling is read too. Read-only echoes such as
// defaultSecurityRules and etag, and fields that are not known, are ignored.
//
// # Kinds
//
// A resource's "type" says what it is. An object without one is known by its
// shape: securityRules or defaultSecurityRules make a network security group,
// addressSpace a virtual network, ipConfigurations a network interface,
// disableBgpRoutePropagation a route table.
// Everything else is skipped silently: templates are full of it.
//
// # References
//
// An object names another one by {"id": "..."}. An id is compared as a whole and
// without case. When that finds nothing and the id or the object's own is not
// from Azure (it does not begin with /subscriptions/ and a subscription), names
// decide: the last segment, for a subnet the last of its network and its own
// ("vnet1/subnets/a" or "vnet1/a"), or its own alone. A name that fits several
// objects is a fault. What an id names and no document has is a fault too.
//
// # Templates
//
// Expressions ("[...]") are not evaluated. What they keep from being read is
// listed in Documents.Unresolved: it is neither valid nor invalid. A network
// security group, rule, network or subnet whose name alone is an expression is
// read under the expression's text.
package arm
