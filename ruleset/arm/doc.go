// Package arm reads the JSON forms of Azure Resource Manager into package policy's
// model, and reports every fault.
//
// Load reads documents as Azure's own tools write them: the nested form of the REST API
// and of templates ("properties"), and the flattened form of "az ... show". A document is
// one object, a list, a page ({"value": []}), or a template's "resources" with inline, child
// and nested resources. Field names and enumerations may have any case, so PowerShell's
// spelling is read too. Read-only fields such as defaultSecurityRules and etag, and unknown
// fields, are ignored.
//
// # Kinds
//
// A resource's "type" says what it is. Without one, the shape decides: securityRules or
// defaultSecurityRules make a network security group, addressSpace a virtual network,
// ipConfigurations a network interface, disableBgpRoutePropagation a route table,
// frontendIPConfigurations and backendAddressPools a load balancer, publicIPAllocationMethod
// and publicIPAddressVersion a public address. Everything else is skipped silently, since
// templates are full of it.
//
// # Translation
//
// Public addresses, NAT gateways and load balancers that are open, or in no document, are in
// Documents.Warnings. They translate nothing; the rest of the policy is fit for use.
//
// # Scale sets
//
// A scale set becomes the network interfaces of its instances before anything is built, unless
// the documents have them.
//
// # References
//
// An object refers to another by {"id": "..."}. Ids are compared in any case, and with
// subscription and resource group where both sides have them. If only one side has them, the
// name decides, with a warning. It is the last segment; for a subnet also the network's name
// and its own ("vnet1/subnets/a" or "vnet1/a"). A name that fits several objects is a fault,
// and so is a bare name that no document has. An id that no document has may be of a resource
// that exists elsewhere: what names it is in Documents.Unresolved, once for each such id.
//
// # Resources that are given again
//
// A template's later giving of a resource updates the earlier, as Azure's PUT does. What
// several documents say of a resource must agree.
//
// # Templates
//
// ARM templates are evaluated (package template) with the values of Reader.SetDeployment. A
// template is an object with "resources" that is no resource itself. Parameters have the
// given values, else those of NAME.parameters.json beside NAME.json, else their defaults. A
// linked template is read only where it is linked, even if it is a document of the policy.
//
// A value that cannot be evaluated stays open. If it is needed, Documents.Unresolved lists
// the place and the reason: the resource is neither valid nor invalid. A resource with an
// open name is open as a whole, since nothing can tell what refers to it.
// Resources without a subscription and a resource group have none in their ids.
//
// # Terraform
//
// The output of "terraform show -json" is turned into resources of ARM (package terraform)
// and read like a template's.
package arm
