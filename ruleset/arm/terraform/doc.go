// Package terraform turns the output of "terraform show -json", of a state or a plan,
// into resources of ARM: what Terraform's azurerm provider would send to Azure.
//
// Read are network security groups and rules, application security groups, virtual
// networks, subnets, peerings, network interfaces, route tables and routes, public
// addresses, and the associations between them; other resources are skipped. Data
// sources of these types count where no resource has the same id. Terraform keeps
// rules, subnets and routes of their own in their parent's list too: the one of its
// own holds.
//
// A plan has no ids of what is yet to be made. A reference to such a resource is
// followed through the plan's configuration, also through variables and outputs of
// modules; ids are made of the resource group and the name. Any other value that
// Terraform knows only after it applied the plan becomes a text "[ADDRESS.FIELD]",
// listed in Result.Reasons.
package terraform
