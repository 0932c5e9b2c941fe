package policy

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// The index leads to what a look at every NIC finds, whatever the reference: names and ids in any case, their ends, letters
// that only Unicode folds, names that several have, and names that nobody has.
func TestNetworkInterfaceIsFoundAsByALookAtAll(t *testing.T) {
	words := []string{"nic", "NIC", "web-1", "Web-1", "K", "\u212a", "k", "\u017f", "S", "ı", "I", "", "é", "É"}
	random := rand.New(rand.NewPCG(1, 2))
	word := func() string { return words[random.IntN(len(words))] }
	set := &Set{}
	for range 60 {
		name := word()
		id := fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.Network/networkInterfaces/%s", word(), word(), name)
		set.NetworkInterfaces = append(set.NetworkInterfaces, &NetworkInterface{Name: name, ID: id})
	}
	keys := func(n *NetworkInterface) []string { return []string{n.Name, n.ID} }
	found := 0
	for range 5000 {
		reference := word()
		for range random.IntN(3) {
			reference = word() + "/" + reference
		}
		if random.IntN(3) == 0 {
			id := set.NetworkInterfaces[random.IntN(len(set.NetworkInterfaces))].ID
			reference = id[random.IntN(len(id)):]
		}
		got, gotErr := set.NetworkInterface(reference)
		want, wantErr := find("network interface", reference, set.NetworkInterfaces, keys)
		if got != want || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
			t.Fatalf("NetworkInterface(%q) = %v, %v; a look at all of them gives %v, %v", reference, got, gotErr, want, wantErr)
		}
		if got != nil {
			found++
		}
	}
	if found == 0 {
		t.Error("no reference has found a NIC: this test shows nothing")
	}
}

// A Set that is still being built is searched too: what was added since is found.
func TestNetworkInterfaceIsFoundInAListThatHasGrown(t *testing.T) {
	set := &Set{NetworkInterfaces: append(make([]*NetworkInterface, 0, 2), &NetworkInterface{Name: "a", ID: "/a"})} // it grows in place
	if _, err := set.NetworkInterface("b"); err == nil {
		t.Fatal("a NIC is found that is not there")
	}
	set.NetworkInterfaces = append(set.NetworkInterfaces, &NetworkInterface{Name: "b", ID: "/b"})
	if nic, err := set.NetworkInterface("B"); err != nil || nic.Name != "b" {
		t.Errorf("NetworkInterface = %v, %v; want b", nic, err)
	}
}
