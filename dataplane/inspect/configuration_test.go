package inspect

import "testing"

// In a cluster an attachment comes after the answer, once the host has the network interface: the server panicked.
func TestNoChangesHaveWords(t *testing.T) {
	var none *AttachmentChanges
	if got := none.String(); got != "nothing changes yet" || none.Any() {
		t.Errorf("got %q", got)
	}
}
