package ask

import "github.com/nsgd/nsgd/dataplane/enginetest"

// The figure's names, as the tests of this package use them.
const (
	vm1, vm2, vm3, vm4, internet, numAttachments = enginetest.VM1, enginetest.VM2, enginetest.VM3, enginetest.VM4, enginetest.Internet, enginetest.NumAttachments

	addr1, addr2, addr3, addr4, world = enginetest.Addr1, enginetest.Addr2, enginetest.Addr3, enginetest.Addr4, enginetest.World
)

var (
	figureSpecs     = enginetest.FigureSpecs
	allowHTTP       = enginetest.AllowHTTP
	figure          = enginetest.Figure
	figureOfTheSeed = enginetest.FigureOfTheSeed
)
