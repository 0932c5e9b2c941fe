package lab

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestWriteToMakesAFolderThatAConfigurationCanBeReadFrom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	if err := WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, ConfigName))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Policy      []string
		Attachments []struct{ Netns string }
	}
	if err := yaml.Unmarshal(raw, &config); err != nil {
		t.Fatal(err)
	}
	for _, policy := range config.Policy {
		if _, err := os.Stat(filepath.Join(dir, policy)); err != nil {
			t.Errorf("policy %q is not relative to the configuration: %v", policy, err)
		}
	}
	var got []string
	for _, a := range config.Attachments {
		got = append(got, a.Netns)
	}
	if !slices.Equal(got, Namespaces()) {
		t.Errorf("attachments in namespaces %v, want %v", got, Namespaces())
	}
	if err := WriteTo(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second WriteTo: %v, want files left as they are", err)
	}
}

func TestHostsHaveTheAddressesOfThePolicy(t *testing.T) {
	for i, host := range Hosts(IPv4)[:4] {
		name := strings.ToLower(host.Name) + "-nic"
		raw, err := fs.ReadFile(Files(), "policy/"+name+".json")
		if err != nil {
			t.Fatal(err)
		}
		var nic struct {
			Name       string
			Properties struct {
				IPConfigurations []struct {
					Properties struct{ PrivateIPAddress, PrivateIPAddressVersion string }
				}
			}
		}
		if err := json.Unmarshal(raw, &nic); err != nil {
			t.Fatal(err)
		}
		if nic.Name != name {
			t.Errorf("name %q in the document of %s", nic.Name, name)
		}
		configurations := nic.Properties.IPConfigurations
		if len(configurations) != 2 {
			t.Fatalf("%d IP configurations in the document of %s, want one a family", len(configurations), name)
		}
		for j, host := range []Host{host, Hosts(IPv6)[i]} {
			got := configurations[j].Properties
			if got.PrivateIPAddress != host.Address.String() || got.PrivateIPAddressVersion != host.Family().String() {
				t.Errorf("%s has %s address %s in the policy, %s among the hosts", host.Name, got.PrivateIPAddressVersion, got.PrivateIPAddress, host.Address)
			}
		}
	}
}
