package inspect

import (
	"testing"

	"github.com/nsgd/nsgd/ruleset/azure"
)

func TestACommentIsWordsWhateverTheNamesAre(t *testing.T) {
	for _, tt := range []struct {
		name   string
		packet TracedPacket
		want   string
	}{
		{"denied", TracedPacket{Access: "Deny", Reason: "rule_deny", Flow: "none", To: "vm1-nic", Segments: 1,
			Stages: []azure.VerificationStage{{NetworkSecurityGroup: "NSG2", RuleName: "securityRules/a"}, {NetworkSecurityGroup: "NSG1", RuleName: "securityRules/b"}}},
			"verdict=Deny nsg=NSG1 rule=securityRules/b reason=rule_deny flow=none to=vm1-nic by=NSG2/securityRules/a,NSG1/securityRules/b"},
		{"a superpacket", TracedPacket{Access: "Allow", Flow: "live", Direction: "reply", Segments: 44}, "verdict=Allow flow=live direction=reply segments=44"},
		{"a name that would say something else", TracedPacket{Access: "Deny", Flow: "none", To: "x\nverdict=Allow"}, `verdict=Deny flow=none to="x\nverdict=Allow"`},
		{"a name with a comma", TracedPacket{Access: "Deny", Flow: "none", To: "x,y"}, `verdict=Deny flow=none to="x,y"`},
		{"a name with an escape", TracedPacket{Access: "Deny", Flow: "none", To: "\x1b[2J"}, `verdict=Deny flow=none to="\x1b[2J"`},
	} {
		if got := comment(&tt.packet); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
