package inspect

// ClusterStatus is how a host of a cluster does.
type ClusterStatus struct {
	Host string `json:"host"`
	// Connected says that etcd answers; Error says why it does not.
	Connected bool   `json:"connected"`
	Error     string `json:"error,omitempty"`
	// Registered says that the host has a lease. CarriesSeconds is for how long it may still carry: negative when it
	// carries nothing, absent with onLost: goOn, when it carries anyhow.
	Registered     bool     `json:"registered"`
	CarriesSeconds *float64 `json:"carriesSeconds,omitempty"`
	// Generation is the one that is carried, Current the one that etcd says is current, Offered an apply under way; 0: none.
	Generation uint64 `json:"generation"`
	Current    uint64 `json:"current"`
	Offered    uint64 `json:"offered,omitempty"`
	// Refused is a generation that this host can't carry, and RefusedFor why; absent when it refuses none.
	Refused    uint64 `json:"refused,omitempty"`
	RefusedFor string `json:"refusedFor,omitempty"`
	// Attached are the network interfaces that are carried here. Waiting are those of this host's configuration that
	// are not.
	Attached []string             `json:"attached"`
	Waiting  []WaitingForAttached `json:"waiting"`
	Faults   []string             `json:"faults"`
	// Reaches counts the network interfaces of other hosts that packets from here go to.
	Reaches int `json:"reaches"`
	// Hosts and Claims are those of the whole cluster.
	Hosts  int `json:"hosts"`
	Claims int `json:"claims"`
}

// WaitingForAttached is a network interface that is not attached here yet.
type WaitingForAttached struct {
	NetworkInterface string `json:"networkInterface"`
	// Host has claimed it; absent: nobody has.
	Host string `json:"host,omitempty"`
}
