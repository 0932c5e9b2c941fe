package control

import (
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/nsgd/nsgd/dataplane/serve"
)

// role is what a peer may do. The kernel says whose a connection is (SO_PEERCRED): one socket serves both roles, and
// nobody has to know a second path.
type role bool

const (
	// look asks what the daemon does. It changes nothing, reads no file that the peer names and shows no packet's bytes.
	look role = false
	// change does all the rest.
	change role = true
)

// mayChange finds out whether a request is root's or of the daemon's user. Without a known peer it is nobody's.
func mayChange(r *http.Request) error {
	socket, ok := serve.Socket(r.Context()).(*net.UnixConn)
	if !ok {
		return refusal(http.StatusForbidden, fmt.Errorf("permission denied: the peer is not known"))
	}
	uid, err := serve.PeerUID(socket)
	if err != nil {
		return refusal(http.StatusForbidden, fmt.Errorf("permission denied: the peer is not known: %w", err))
	}
	return permit(uid)
}

// permit refuses a user who may only look.
func permit(uid uint32) error {
	if own := os.Geteuid(); uid != 0 && int(uid) != own {
		return refusal(http.StatusForbidden, fmt.Errorf("permission denied: user %d may look; allowed are root and the daemon's user, %d", uid, own))
	}
	return nil
}
