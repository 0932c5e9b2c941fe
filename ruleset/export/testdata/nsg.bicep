resource web_nsg 'Microsoft.Network/networkSecurityGroups@2024-05-01' = {
  name: 'web-nsg'
  location: 'westeurope'
  properties: {
    flushConnection: true
    securityRules: [
      {
        name: 'ssh'
        properties: {
          priority: 100
          direction: 'Inbound'
          access: 'Deny'
          protocol: 'Tcp'
          sourcePortRange: '1024-65535'
          sourceAddressPrefixes: [
            '192.0.2.0/24'
            '198.51.100.7'
          ]
          destinationPortRange: '22'
          destinationAddressPrefix: '10.0.0.4'
        }
      }
      {
        name: 'out'
        properties: {
          priority: 100
          direction: 'Outbound'
          access: 'Allow'
          protocol: '*'
          sourcePortRange: '*'
          sourceApplicationSecurityGroups: [
            {
              id: '/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/nsgd/providers/Microsoft.Network/applicationSecurityGroups/web'
            }
            {
              id: '/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/nsgd/providers/Microsoft.Network/applicationSecurityGroups/db'
            }
          ]
          destinationPortRange: '*'
          destinationAddressPrefix: 'Storage.WestEurope'
        }
      }
    ]
  }
}
