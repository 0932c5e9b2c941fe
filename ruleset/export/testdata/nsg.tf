resource "azurerm_network_security_group" "web_nsg" {
  name                = "web-nsg"
  resource_group_name = "web-rg"
  location            = "westeurope"

  security_rule {
    name                       = "ssh"
    priority                   = 100
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "Tcp"
    source_port_range          = "1024-65535"
    source_address_prefixes    = ["192.0.2.0/24", "198.51.100.7"]
    destination_port_range     = "22"
    destination_address_prefix = "10.0.0.4"
  }

  security_rule {
    name                                  = "out"
    priority                              = 100
    direction                             = "Outbound"
    access                                = "Allow"
    protocol                              = "*"
    source_port_range                     = "*"
    source_application_security_group_ids = ["/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/nsgd/providers/Microsoft.Network/applicationSecurityGroups/web", "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/nsgd/providers/Microsoft.Network/applicationSecurityGroups/db"]
    destination_port_range                = "*"
    destination_address_prefix            = "Storage.WestEurope"
  }
}
