package conformance

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Verdict is a question of IP flow verify and its answer:
//
//	NIC PROTOCOL LOCAL <- REMOTE => ACCESS [RULE of NSG] [(REASON)]
//
// An arrow to the left asks about the inbound direction. An answer without a rule means that no
// NSG stands there.
type Verdict struct {
	Text string

	NIC, Direction, Protocol string
	Local, Remote            End
	Access, Rule, NSG        string
	Reason                   string
}

// End is an address and, with TCP and UDP, a port or "*".
type End struct {
	Address netip.Addr
	Port    string
}

// UnmarshalYAML reads the line.
func (v *Verdict) UnmarshalYAML(node *yaml.Node) error {
	if err := node.Decode(&v.Text); err != nil {
		return err
	}
	if err := v.parse(); err != nil {
		return fmt.Errorf("line %d: %q: %w", node.Line, v.Text, err)
	}
	return nil
}

func (v *Verdict) parse() (err error) {
	question, answer, found := strings.Cut(v.Text, " => ")
	words := strings.Fields(question)
	if !found || len(words) != 5 {
		return fmt.Errorf("want NIC PROTOCOL LOCAL <- REMOTE => ACCESS")
	}
	v.NIC, v.Protocol = words[0], words[1]
	if v.Local, err = parseEnd(words[2]); err != nil {
		return err
	}
	if v.Remote, err = parseEnd(words[4]); err != nil {
		return err
	}
	switch words[3] {
	case "<-":
		v.Direction = "Inbound"
	case "->":
		v.Direction = "Outbound"
	default:
		return fmt.Errorf("%q: want <- or ->", words[3])
	}
	v.Reason = "noNetworkSecurityGroup"
	if before, reason, ok := strings.Cut(answer, "("); ok {
		v.Reason, answer = strings.TrimSuffix(reason, ")"), before
	}
	switch words := strings.Fields(answer); {
	case len(words) == 4 && words[2] == "of":
		v.Access, v.Rule, v.NSG = words[0], words[1], words[3]
		if !strings.Contains(v.Text, "(") {
			v.Reason = "rule"
		}
	case len(words) == 1:
		v.Access = words[0]
	default:
		return fmt.Errorf("answer %q: want ACCESS or ACCESS RULE of NSG", answer)
	}
	if v.Access != "Allow" && v.Access != "Deny" {
		return fmt.Errorf("access %q: want Allow or Deny", v.Access)
	}
	return nil
}

func parseEnd(text string) (e End, err error) {
	if e.Address, err = netip.ParseAddr(text); err == nil {
		return e, nil
	}
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return e, fmt.Errorf("%q: want ADDRESS or ADDRESS:PORT", text)
	}
	e.Port = text[i+1:]
	e.Address, err = netip.ParseAddr(strings.Trim(text[:i], "[]"))
	return e, err
}

// Request is the question in the words of Azure's API, one line.
func (v *Verdict) Request() []byte {
	line, err := json.Marshal(map[string]string{
		"targetNicResourceId": v.NIC, "direction": v.Direction, "protocol": v.Protocol,
		"localIPAddress": v.Local.Address.String(), "localPort": v.Local.Port,
		"remoteIPAddress": v.Remote.Address.String(), "remotePort": v.Remote.Port,
	})
	if err != nil {
		panic(err) // strings can be written
	}
	return append(line, '\n')
}

// Answered is an answer of nsgctl verify.
type Answered struct {
	Access               string `json:"access"`
	RuleName             string `json:"ruleName"`
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	Reason               string `json:"reason"`
	Error                string `json:"error"`
}

// Differs says how an answer differs from the expected one; empty when it does not.
func (v *Verdict) Differs(a *Answered) string {
	want := Answered{Access: v.Access, RuleName: v.Rule, NetworkSecurityGroup: v.NSG, Reason: v.Reason}
	if *a == want {
		return ""
	}
	return fmt.Sprintf("%s\nanswered %+v", v.Text, *a)
}
