// Package arm reads the JSON forms of Azure Resource Manager into package policy's
// model, and reports every fault.
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
// disableBgpRoutePropagation a route table, frontendIPConfigurations and backendAddressPools
// a load balancer, publicIPAllocationMethod and publicIPAddressVersion a public address.
// Everything else is skipped silently: templates are full of it.
//
// # Translation
//
// What of public addresses, NAT gateways and load balancers is open, or in no document, is in
// Documents.Warnings: nothing is translated by it, and the rest is fit for use.
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
// ARM templates are evaluated (package template) with what Reader.SetDeployment gives:
// a template is an object with "resources" that is no resource itself. Parameters have
// the values given, else those of NAME.parameters.json beside NAME.json, else their
// defaults. A linked template that is a document of the policy too is read where it is
// linked, and only there. What can't be evaluated stays open: a field that is needed is
// listed in Documents.Unresolved with the place and the reason, being neither valid nor
// invalid. A network security group, rule, network or subnet whose name alone is open is
// read under the expression's text. Resources without a subscription and a resource
// group of their own have none in their ids, so that names decide.
//
// # Terraform
//
// The output of "terraform show -json" is turned into resources of ARM (package
// terraform) and read like a template's.
package arm
