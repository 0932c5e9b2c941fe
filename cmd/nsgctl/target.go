package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// target are the flags that say what a question is about, as az has them.
type target struct{ nic, vm, group string }

func (t *target) flags(c *cobra.Command) {
	c.Flags().StringVar(&t.nic, "nic", "", "network interface, by name or resource id")
	c.Flags().StringVar(&t.vm, "vm", "", "virtual machine of the network interfaces, by name or resource id")
	t.groupFlag(c)
}

func (t *target) groupFlag(c *cobra.Command) {
	c.Flags().StringVarP(&t.group, groupFlag, "g", "", `resource group of what is given by name, and that templates are for (default "nsgd")`)
}

// networkInterface is the NIC's reference, empty without one.
func (t *target) networkInterface() string {
	return t.qualified(t.nic, "Microsoft.Network/networkInterfaces/")
}

// virtualMachine is the virtual machine's reference, empty without one.
func (t *target) virtualMachine() string {
	reference := t.qualified(t.vm, "Microsoft.Compute/virtualMachines/")
	if reference != "" && !strings.Contains(reference, "/") {
		return "virtualMachines/" + reference
	}
	return reference
}

// qualified puts the resource group before a name: the end of an id is enough to find it.
func (t *target) qualified(nameOrID, kind string) string {
	if t.group == "" || nameOrID == "" || strings.Contains(nameOrID, "/") {
		return nameOrID
	}
	return "resourceGroups/" + t.group + "/providers/" + kind + nameOrID
}

// expectation is the access that every answer must have; empty: any.
type expectation string

func (e *expectation) flag(c *cobra.Command) {
	c.Flags().StringVar((*string)(e), "expect", "", "allow or deny: exit with 1 when an answer is different")
	complete(c, "expect", words("allow", "deny"))
}

func (e expectation) check(verb string) error {
	if e != "" && !strings.EqualFold(string(e), "allow") && !strings.EqualFold(string(e), "deny") {
		return usageError{fmt.Errorf("%s: --expect %q: allowed are allow and deny", verb, string(e))}
	}
	return nil
}

func (e expectation) disappoints(access string) bool {
	return e != "" && !strings.EqualFold(string(e), access)
}

// failed says on standard error what was expected and what came instead.
func (e expectation) failed(c *cobra.Command, instead string) error {
	fmt.Fprintf(c.ErrOrStderr(), "nsgctl: %s: --expect %s: %s\n", verbName(c), strings.ToLower(string(e)), instead)
	return errNegative
}

// inFlags puts flags in place of the fields of Azure's API, in an error that begins with one and may compare
// it with another.
func inFlags(err error, flags map[string]string) error {
	text := err.Error()
	field := text[:strings.IndexFunc(text+" ", func(r rune) bool { return r == ' ' || r == ':' })]
	if flags[field] == "" {
		return err
	}
	text = flags[field] + text[len(field):]
	before, other, found := strings.Cut(text, " as ")
	if name, rest, _ := strings.Cut(other, " "); found && flags[name] != "" {
		text = before + " as " + flags[name] + " " + rest
	}
	return errors.New(text)
}
