package steer

import (
	"testing"

	"github.com/nsgd/nsgd/tun/objecttest"
)

func TestTheObjectIsOfItsSource(t *testing.T) { objecttest.IsOfItsSource(t, object) }

func TestTheSourceCompilesToTheObject(t *testing.T) { objecttest.CompilesTo(t, object) }
