package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/arm/armtest"
)

// policyOptions are the flags of -groups.
type policyOptions struct {
	groups, rules, interfaces int
	tags                      string
	flows                     int
}

// tagEvery is how many pairs of rules there are for one that names a tag.
const tagEvery = 10

// policyConfig attaches one network interface and the internet.
const policyConfig = `policy: [policy/]
attachments:
- {networkInterface: nic0, netns: bench-a, create: true, device: eth0}
- {internet: true, netns: bench-b, create: true, device: eth0}
metrics: {listen: "127.0.0.1:9646"}
timeouts: {udpOneWay: 1h}
`

// policyRig is a daemon with a policy that is measured.
type policyRig struct {
	options *policyOptions
	dir     string
	many    armtest.Policy
	client  *control.Client
	pid     int
	rounds  int
}

// runPolicy measures what a policy costs: its load, its reloads, memory, and questions about it.
func runPolicy(binary string, o *policyOptions, rounds int) (err error) {
	if err := privateWorld(); err != nil {
		return err
	}
	dir, err := tempDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &policyRig{options: o, dir: dir, rounds: rounds}
	config, err := r.write()
	if err != nil {
		return err
	}
	began := time.Now()
	b, err := startBackground(binary, "run", "--config", config)
	if err != nil {
		return err
	}
	defer func() {
		if b.stop(); err != nil {
			err = fmt.Errorf("%w\n%s", err, b.log.Bytes())
		}
	}()
	took, err := b.answers(began, 0)
	if err != nil {
		return err
	}
	r.client = control.NewClient(restartSocket)
	defer r.client.Close()
	status, err := r.client.Status(context.Background())
	if err != nil {
		return err
	}
	r.pid = status.PID
	fmt.Printf("%d network interfaces, %d network security groups of %d rules, %s\n", o.interfaces, o.groups, o.rules, r.tagsInWords())
	r.tell("ready", took, "")
	if err := r.fill(); err != nil {
		return err
	}
	if err := r.reloads(); err != nil {
		return err
	}
	return r.questions()
}

func (r *policyRig) tagsInWords() string {
	if len(r.many.Tags) == 0 {
		return "no service tags"
	}
	return fmt.Sprintf("%d service tags", len(r.many.Tags))
}

// write writes the policy and the configuration.
func (r *policyRig) write() (config string, err error) {
	o, text := r.options, policyConfig
	r.many = armtest.Policy{Groups: o.groups, Rules: o.rules, Interfaces: o.interfaces}
	if o.tags != "" {
		tags, err := arm.ReadServiceTags(o.tags)
		if err != nil {
			return "", err
		}
		for _, tag := range tags.All() {
			r.many.Tags = append(r.many.Tags, tag.Name)
		}
		r.many.TagEvery = tagEvery
		text += "serviceTags: tags.json\n"
		data, err := os.ReadFile(o.tags)
		if err == nil {
			err = os.WriteFile(r.tagFile(), data, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	if o.flows > 0 {
		text += fmt.Sprintf("flows: {max: %d, maxPerNetworkInterface: %d}\n", o.flows*5/4, o.flows*5/4)
	}
	if err := os.Mkdir(r.policy(), 0o755); err != nil {
		return "", err
	}
	if err := r.many.Write(r.policy()); err != nil {
		return "", err
	}
	config = filepath.Join(r.dir, lab.ConfigName)
	return config, os.WriteFile(config, []byte(text), 0o644)
}

func (r *policyRig) policy() string  { return filepath.Join(r.dir, "policy") }
func (r *policyRig) tagFile() string { return filepath.Join(r.dir, "tags.json") }

// tell prints how long something took, and the memory of the daemon after it.
func (r *policyRig) tell(what string, took time.Duration, more string) {
	fmt.Printf("%-28s %9.1f ms   %5d MB resident, %5d MB at most%s\n", what, milliseconds(took), memoryIn(r.pid, "VmRSS"), memoryIn(r.pid, "VmHWM"), more)
}

// fill begins the flows that live meanwhile.
func (r *policyRig) fill() error {
	const attempts = 5
	if r.options.flows == 0 {
		return nil
	}
	if err := script("ip -n bench-b route add blackhole 203.0.112.0/24"); err != nil {
		return err
	}
	began := time.Now()
	for range attempts {
		if err := fillFrom("bench-a", 0, r.options.flows); err != nil {
			return err
		}
		status, err := r.client.Status(context.Background())
		if err != nil {
			return err
		}
		if status.Flows.Live >= int64(r.options.flows) {
			r.tell(fmt.Sprint(status.Flows.Live, " flows"), time.Since(began), "")
			return nil
		}
	}
	return fmt.Errorf("fewer than %d flows live: datagrams were lost each time", r.options.flows)
}

// reloads measures reloads after different changes.
func (r *policyRig) reloads() error {
	extra := armtest.InterfaceFile(r.policy(), r.options.interfaces)
	changes := []struct {
		name   string
		change func(round int) error
	}{
		{"reload, nothing changed", func(int) error { return nil }},
		{"reload, one rule", func(round int) error {
			document := bytes.Replace(r.many.Group(0), []byte(`"20001"`), []byte(strconv.Quote(strconv.Itoa(30_001+round))), 1)
			return os.WriteFile(armtest.GroupFile(r.policy(), 0), document, 0o644)
		}},
		{"reload, a network interface", func(round int) error {
			if round%2 == 1 {
				return os.Remove(extra)
			}
			return os.WriteFile(extra, r.many.Interface(r.options.interfaces), 0o644)
		}},
		{"reload, the tag file", r.changeTags},
	}
	for _, c := range changes {
		if c.name == "reload, the tag file" && r.options.tags == "" {
			continue
		}
		var times []time.Duration
		for round := range r.rounds {
			if err := c.change(round); err != nil {
				return err
			}
			began := time.Now()
			if _, err := r.client.Reload(context.Background(), 0); err != nil {
				return err
			}
			times = append(times, time.Since(began))
		}
		r.tellTimes(c.name, times, "")
	}
	return nil
}

// tellTimes is tell for the median of some times.
func (r *policyRig) tellTimes(what string, times []time.Duration, more string) {
	slices.Sort(times)
	r.tell(what, times[len(times)/2], fmt.Sprintf("; %.1f to %.1f ms%s", milliseconds(times[0]), milliseconds(times[len(times)-1]), more))
}

// lastPrefix is the last IPv4 prefix of a list.
var lastPrefix = regexp.MustCompile(`"(\d+)\.\d+\.\d+\.\d+/\d+"\s*\]`)

// changeTags gives one tag another prefix.
func (r *policyRig) changeTags(round int) error {
	data, err := os.ReadFile(r.tagFile())
	if err != nil {
		return err
	}
	at := lastPrefix.FindIndex(data)
	if at == nil {
		return fmt.Errorf("%s: no tag ends with an IPv4 prefix", r.options.tags)
	}
	changed := slices.Concat(data[:at[0]], fmt.Appendf(nil, `"198.51.%d.0/24"]`, round), data[at[1]:])
	return os.WriteFile(r.tagFile(), changed, 0o644)
}

// questions measures what is asked of the daemon.
func (r *policyRig) questions() error {
	ctx := context.Background()
	discard := func(_ any, err error) error { return err }
	questions := []struct {
		name string
		ask  func() error
	}{
		{"top rules", func() error { return discard(r.client.Top(ctx, inspect.TopQuestion{View: inspect.TopRules})) }},
		{"top flows", func() error { return discard(r.client.Top(ctx, inspect.TopQuestion{View: inspect.TopFlows})) }},
		{"flows", func() error { return discard(r.client.Flows(ctx, inspect.FlowFilter{Limit: 1000})) }},
		{"flows of an address", func() error {
			return discard(r.client.Flows(ctx, inspect.FlowFilter{Address: "203.0.112.0", Limit: 1000}))
		}},
		{"rules of a group", func() error { return discard(r.client.Rules(ctx, inspect.RuleFilter{NetworkSecurityGroup: "many0"})) }},
		{"rules", func() error { return discard(r.client.Rules(ctx, inspect.RuleFilter{})) }},
		{"effective", func() error { return discard(r.client.Effective(ctx, "nic1")) }},
		{"status", func() error { return discard(r.client.Status(ctx)) }},
		{"verify, 1,000 questions", r.verify},
		{"scrape", func() error { return r.scrape("identity") }},
		{"scrape, gzip", func() error { return r.scrape("gzip") }},
	}
	for _, q := range questions {
		var times []time.Duration
		for range r.rounds {
			began := time.Now()
			if err := q.ask(); err != nil {
				return fmt.Errorf("%s: %w", q.name, err)
			}
			times = append(times, time.Since(began))
		}
		r.tellTimes(q.name, times, "")
	}
	return nil
}

// verify asks a thousand questions about a network interface.
func (r *policyRig) verify() error {
	const questions = 1000
	var requests, answers bytes.Buffer
	for i := range questions {
		fmt.Fprintf(&requests, `{"targetNicResourceId":"nic%d","direction":"Inbound","protocol":"TCP","localIPAddress":%q,"localPort":"%d","remoteIPAddress":"64.0.%d.1","remotePort":"60000"}`+"\n",
			i%r.options.interfaces, r.many.Address(i%r.options.interfaces), 20_000+i, i%256)
	}
	if err := r.client.Verify(context.Background(), false, &requests, &answers); err != nil {
		return err
	}
	if got := strings.Count(answers.String(), "\n"); got != questions {
		return fmt.Errorf("%d of %d questions answered: %.200s", got, questions, answers.String())
	}
	return nil
}

// scrape is what Prometheus does.
func (r *policyRig) scrape(encoding string) error {
	request, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:9646/metrics", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept-Encoding", encoding)
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	n, err := io.Copy(io.Discard, response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", response.Status)
	}
	fmt.Printf("  %d bytes, %s\n", n, encoding)
	return err
}
