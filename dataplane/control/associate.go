package control

import (
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
)

func associate(e *topology.Endpoint, stage *topology.Stage) arm.EffectiveAssociation { return arm.EffectiveAssociation{} }
