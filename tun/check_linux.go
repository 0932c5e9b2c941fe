package tun

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
)

// CheckNamespace finds out whether there is a network namespace: ErrNoNamespace. What may not be seen counts as there.
func CheckNamespace(name string) error {
	if name == "" {
		return nil
	}
	ns, err := openNamespace(name)
	if errors.Is(err, os.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	return ns.Close()
}

// CheckDevice finds out whether Open could use a device's name in a namespace that there is: an interface of another
// kind must not have it. What may not be seen counts as free.
func CheckDevice(namespace, device string) error {
	kind, err := kindOf(namespace, device)
	switch {
	case errors.Is(err, os.ErrPermission), kind == "", kind == "tuntap":
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%q: an interface of that name is there, of the kind %s: another name is needed", device, kind)
}

// CheckInterface finds out whether an interface is there. What may not be seen counts as there.
func CheckInterface(namespace, name string) error {
	kind, err := kindOf(namespace, name)
	switch {
	case errors.Is(err, os.ErrPermission), kind != "":
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%q: there is no such interface: `ip link` lists those that are there; with wait: true nsgd starts without it", name)
}

// kindOf is the kind of an interface; empty: there is none.
func kindOf(namespace, name string) (kind string, err error) {
	err = Do(namespace, func() error {
		link, err := netlink.LinkByName(name)
		if err == nil {
			kind = link.Type()
		}
		return err
	})
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		err = nil
	}
	return kind, err
}
