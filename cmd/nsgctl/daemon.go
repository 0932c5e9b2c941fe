package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/serve"
	"github.com/spf13/cobra"
)

const defaultSocket = "/run/nsgd/nsgd.sock"

// daemonFlags say which daemon is asked: by its socket, or by its address and certificates.
type daemonFlags struct {
	socket, host string
	files        serve.MutualFiles
}

// daemonVariables stand for flags that are not given.
var daemonVariables = map[string]string{"socket": "NSGCTL_SOCKET", "host": "NSGCTL_HOST", "cert": "NSGCTL_CERT", "key": "NSGCTL_KEY", "ca": "NSGCTL_CA"}

func (d *daemonFlags) flags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&d.socket, "socket", defaultSocket, "the daemon's control socket ($NSGCTL_SOCKET)")
	f.StringVar(&d.host, "host", "", "NAME:PORT of a daemon elsewhere, in place of the socket ($NSGCTL_HOST)")
	f.StringVar(&d.files.Certificate, "cert", "", "file of this client's certificate, for --host ($NSGCTL_CERT)")
	f.StringVar(&d.files.Key, "key", "", "file of its key ($NSGCTL_KEY)")
	f.StringVar(&d.files.CA, "ca", "", "file of the CA that signs the daemon's certificate ($NSGCTL_CA)")
}

// check completes the flags from the environment and refuses what does not go together.
func (d *daemonFlags) check(c *cobra.Command) error {
	changed := c.Flags().Changed
	if changed("socket") && changed("host") {
		return usageError{fmt.Errorf("%s: --socket and --host exclude each other", verbName(c))}
	}
	for flag, value := range map[string]*string{"socket": &d.socket, "host": &d.host, "cert": &d.files.Certificate, "key": &d.files.Key, "ca": &d.files.CA} {
		// A flag for one of the two places holds against the other's variable.
		if changed(flag) || flag == "host" && changed("socket") {
			continue
		}
		*value = cmp.Or(os.Getenv(daemonVariables[flag]), *value)
	}
	if d.host == "" {
		for _, flag := range []string{"cert", "key", "ca"} {
			if changed(flag) && !changed(allHostsFlag) {
				return usageError{fmt.Errorf("%s: --%s goes with --host", verbName(c), flag)}
			}
		}
		return nil
	}
	if _, _, err := net.SplitHostPort(d.host); err != nil {
		return usageError{fmt.Errorf("%s: --host %q: allowed is NAME:PORT", verbName(c), d.host)}
	}
	if d.files.Certificate == "" || d.files.Key == "" || d.files.CA == "" {
		return usageError{fmt.Errorf("%s: --host needs --cert, --key and --ca", verbName(c))}
	}
	return nil
}

// client asks the daemon.
func (g *global) client() *control.Client {
	d := &g.daemon
	if d.host == "" {
		return control.NewClient(d.socket)
	}
	return control.NewRemoteClient(d.host, d.files)
}

// localPaths refuses files of this host where a daemon elsewhere would read its own.
func (g *global) localPaths(c *cobra.Command, paths []string) error {
	if g.daemon.host != "" && len(paths) > 0 {
		return usageError{errors.New(verbName(c) + ": with --host the daemon would read files of its own host: PATH is for --socket")}
	}
	return nil
}
