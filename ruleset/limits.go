package ruleset

// Azure's limits, see "Azure subscription limits: networking".
const (
	MinPriority = 100
	MaxPriority = 4096

	MaxNameLength        = 80
	MaxDescriptionLength = 140

	MaxRulesPerGroup = 1000
	// MaxAddressesPerGroup counts the addresses and ranges of all rules of an
	// NSG, sources and destinations apart.
	MaxAddressesPerGroup = 4000
	MaxASGsPerSide       = 10
	// MaxASGsPerGroup counts different ASGs in all rules of an NSG.
	MaxASGsPerGroup = 100
	// MaxPortRangesPerRule holds for source and destination ports apart. Azure
	// publishes no number for ports; this one is ours.
	MaxPortRangesPerRule = 4000
)
