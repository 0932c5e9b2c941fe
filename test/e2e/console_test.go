package e2e

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
)

// showTraffic has the lab's hosts talk until the test ends: what is allowed, and what is denied.
func showTraffic(t *testing.T) {
	t.Helper()
	serveTCP(t, vm1, 80)
	serveTCP(t, vm3, 8080)
	for _, conn := range []net.Conn{mustConnect(t, internet, vm1, 80), mustConnect(t, vm4, vm3, 8080)} {
		repeat(t, 20*time.Millisecond, func() { echo(conn, silence) })
	}
	datagrams := bindUDP(t, internet, 0)
	refused := &net.UDPAddr{IP: vm1.Address.AsSlice(), Port: 8080}
	repeat(t, 50*time.Millisecond, func() { datagrams.WriteToUDP(make([]byte, 64), refused) })
}

// views are what each view shows under showTraffic.
var views = []struct {
	name, address string
	shows         func(*browser)
}{
	{"map", "map", func(b *browser) {
		b.shows(".map .edge.allow text", "NSG2/AllowHttpInBound", "kbit/s")
		b.shows(".map .edge.deny", "NSG1/DenyAllInBound", "packets/s")
		b.shows(".map .edge.allow", "AllowVnetInBound")
		b.shows(".map text", "virtual network", "vnet1")
		b.shows("tr.denied td", "UDP 203.0.113.10 to 10.0.1.4:8080")
	}},
	{"rules", "rules?nic=vm1-nic", func(b *browser) {
		b.shows("h2", "Inbound: NSG1", "subnet")
		b.shows("tr[data-rule=DenyAllInBound]", "Deny", "ago")
		b.shows("tr.never[data-rule=AllowAzureLoadBalancerInBound]", "never")
		b.waits("a rule has a sparkline", `document.querySelector("tr[data-rule=AllowHttpInBound] .spark rect") !== null`)
	}},
	{"flows", "flows", func(b *browser) {
		b.shows(".grid .row.deny", "203.0.113.10", "10.0.1.4:8080", "NSG1/DenyAllInBound")
	}},
	{"live", "flows?kind=flows&filter=" + "dst%20port%2080", func(b *browser) {
		b.shows(".grid .row", "10.0.1.4:80", "established", "NSG2/AllowHttpInBound")
	}},
	{"drops", "flows?kind=drops", func(b *browser) { b.shows(".grid .row", "10.0.1.4:8080", "NSG1/DenyAllInBound") }},
	{"ask", "ask?from=internet&to=10.0.1.4&port=8080&protocol=TCP", func(b *browser) {
		b.shows(".path", "Deny", "NSG1/DenyAllInBound")
		b.shows(".nearest", "NSG1/AllowHttpInBound", "destination port: the rule has 80, the packet has 8080")
	}},
	{"change", "change", func(b *browser) {
		b.shows(".card", "newly denied", "DenyWeb")
		b.shows("tr.cut", "10.0.1.4:80", "NSG1/DenyWeb")
		b.shows("main", "1 of ")
	}},
}

// TestConsoleShowsRealTraffic opens each view on a desk and on a phone, has axe look at it, and keeps pictures.
func TestConsoleShowsRealTraffic(t *testing.T) {
	needWorld(t)
	dir := configure(t, labPolicy())
	editDocument(t, dir, "nsg1", func(properties map[string]any) { properties["flushConnection"] = true }) // a denial cuts
	startIn(t, dir)
	showTraffic(t)
	groups(rules(rule{name: "DenyWeb", priority: 100, direction: "Inbound", access: "Deny", protocol: "Tcp", source: "Internet", port: "80"}), rules(allowHTTPIn)).write(t, dir)
	nsgctl(t, "candidate", "start")
	b := openBrowser(t)
	for _, size := range []screenSize{desk, mobile} {
		for _, v := range views {
			t.Run(v.name+" on a "+size.name, func(t *testing.T) {
				b := &browser{t, b.ctx}
				b.open(size, v.address)
				v.shows(b)
				if wide := evaluate[int64](b, "document.scrollingElement.scrollWidth"); wide > size.width {
					t.Errorf("the page is %d pixels wide", wide)
				}
				b.picture(v.name + "-" + size.name)
				b.accessible(v.name)
				b.dark(true)
				b.accessible(v.name + ", dark")
				b.picture(v.name + "-" + size.name + "-dark")
				b.dark(false)
			})
		}
	}
}

// TestConsoleWalk is the walk of the console's README: its blocks, and what a person sees between them.
func TestConsoleWalk(t *testing.T) {
	needWorld(t)
	s := &session{t: t, dir: scratch(t)}
	defer s.end()
	var steps []block
	for _, one := range readBlocks(t, "deploy/console/README.md") {
		switch {
		case one.kind == "up":
			s.up(one)
		case one.language != "sh" || one.kind != "":
		case s.daemon == nil:
			s.run(one)
		default:
			steps = append(steps, one)
		}
	}
	if len(steps) != 3 {
		t.Fatalf("the walk has %d steps: a client is denied, a rule is mended, the candidate is promoted", len(steps))
	}
	b := openBrowser(t)
	b.open(desk, "flows?kind=denied")
	b.shows("#state", "live")
	s.run(steps[0])
	b.click(".grid .row.deny", "10.0.1.4:8080")
	b.shows(".why", "Reason: rule", "Inbound subnet", "NSG1 DenyAllInBound")
	b.click(".why a", "nearest rule")
	b.shows(".nearest", "NSG1/AllowHttpInBound", "destination port: the rule has 80, the packet has 8080")

	s.run(steps[1])
	b.open(desk, "change")
	b.shows(".card", "newly allowed", "vm1-nic", "port 8080")
	b.shows("h3", "Would allow: ")
	b.shows("summary", "NSG2/AllowHttpInBound")
	b.shows(".note.good", "Now it would cut 0 of")
	b.picture("walk-candidate")

	s.run(steps[2])
	b.shows("td", "taken")
	b.shows("option", "generation 2, in force")
	b.open(desk, "ask?from=203.0.113.10&to=10.0.1.4&port=8080&protocol=TCP")
	b.shows(".path", "Allow", "NSG2/AllowHttpInBound")
}

// A click on an edge leads to why.
func TestConsoleMapLeadsToTheReason(t *testing.T) {
	start(t, labPolicy())
	showTraffic(t)
	b := openBrowser(t)
	b.open(desk, "map")
	b.click(".map a.edge.deny", "DenyAllInBound")
	b.waits("the address asks", `location.hash.startsWith("#/ask?") && location.hash.includes("to=10.0.1.4")`)
	b.shows(".path", "Deny", "NSG1/DenyAllInBound")
	b.shows(".nearest", "Nearest rule that would allow")
}

// What a document calls its resources is text, whatever it looks like, and the page runs no script but its own.
func TestConsoleTakesNamesForText(t *testing.T) {
	needWorld(t)
	const hostile = `vm3"><img src=x onerror=hacked()><script>hacked()</script>`
	dir := configure(t, labPolicy())
	renameInterface(t, dir, "vm3-nic", hostile)
	startIn(t, dir)
	serveTCP(t, vm3, 8080)
	conn := mustConnect(t, vm4, vm3, 8080)
	repeat(t, 20*time.Millisecond, func() { echo(conn, silence) })
	b := openBrowser(t)
	for _, v := range []struct{ address, selector string }{
		{"map", "tr.allowed td"}, {"rules?nic=vm4-nic", "option"}, {"flows?kind=flows", ".grid .row span"}, {"ask?from=10.0.3.4&to=10.0.2.4&port=8080&protocol=TCP", ".path h2"},
	} {
		b.open(desk, v.address)
		b.shows(v.selector, hostile)
		if found := evaluate[int](b, `document.querySelectorAll("main img, main script").length`); found != 0 {
			t.Errorf("%s: %d elements of a name", v.address, found)
		}
	}
	blocked := evaluate[string](b, `new Promise((done) => {
		addEventListener("securitypolicyviolation", (e) => done(e.effectiveDirective + " " + e.blockedURI));
		const s = document.createElement("script");
		s.textContent = "window.ran = true";
		document.head.append(s);
	})`)
	if ran := evaluate[bool](b, `"ran" in window`); ran || blocked != "script-src-elem inline" {
		t.Errorf("an inline script ran: %v, blocked: %q", ran, blocked)
	}
	if got := evaluate[string](b, `fetch("http://203.0.113.10/").then(() => "asked", (e) => "refused")`); got != "refused" {
		t.Errorf("another host was %s", got)
	}
}

// TestConsoleIsQuick reports what the browser itself has measured.
func TestConsoleIsQuick(t *testing.T) {
	start(t, labPolicy())
	showTraffic(t)
	b := openBrowser(t)
	var paints []float64
	for range 9 {
		b.open(desk, "map")
		paints = append(paints, evaluate[float64](b, paint("first-contentful-paint")))
		b.shows(".map .edge.allow", "AllowHttpInBound")
	}
	slices.Sort(paints)
	t.Logf("first contentful paint of 9 visits: after %.0f ms in the middle, %.0f to %.0f", paints[4], paints[0], paints[8])

	const rows = 10_000
	b.open(desk, "flows?kind=denied")
	from := bindUDP(t, internet, 0)
	// A thousand a second are shown at most.
	repeat(t, 10*time.Millisecond, func() {
		for port := range 9 {
			from.WriteToUDP(make([]byte, 64), &net.UDPAddr{IP: vm1.Address.AsSlice(), Port: 1000 + port})
		}
	})
	b.waits("the table is full", fmt.Sprintf(`document.querySelector(".grid")?.getAttribute("aria-rowcount") === "%d"`, rows+1))
	if n := evaluate[int](b, `document.querySelectorAll(".grid .row").length`); n > 100 {
		t.Errorf("%d rows are elements", n)
	}
	type scrolled struct{ Frames, Milliseconds, Longest, Top float64 }
	var s scrolled
	counted := b.trace("devtools.timeline.frame,disabled-by-default-devtools.timeline.frame,devtools.timeline", func() {
		s = evaluate[scrolled](b, `new Promise((done) => {
			const grid = document.querySelector(".grid"), times = [];
			const step = (now) => {
				times.push(now);
				grid.scrollTop += 100;
				if (now - times[0] < 3000 || grid.scrollTop < 1000 && now - times[0] < 60000) return requestAnimationFrame(step);
				done({frames: times.length - 1, milliseconds: now - times[0], longest: Math.max(...times.slice(1).map((t, i) => t - times[i])), top: grid.scrollTop});
			};
			requestAnimationFrame(step);
		})`)
	})
	if s.Frames < 1 || s.Top < 1000 {
		t.Fatalf("nothing scrolls: %+v", s)
	}
	t.Logf("%d rows scroll while more come: %.1f frames a second, longest gap %.0f ms; the browser's trace: %d drawn, %d dropped", rows,
		1000*s.Frames/s.Milliseconds, s.Longest, counted["DrawFrame"], counted["DroppedFrame"])
}

func paint(name string) string {
	return fmt.Sprintf(`new Promise((done) => {
		const look = () => { const p = performance.getEntriesByName(%q)[0]; if (p) done(p.startTime); else setTimeout(look, 20); };
		look();
	})`, name)
}

// renameInterface gives a network interface of the lab another name, in its document and in the configuration.
func renameInterface(t *testing.T, dir, from, to string) {
	t.Helper()
	replaceIn(t, policyFile(dir, from), `"name": "`+from+`"`, `"name": `+mustJSON(t, to))
	replaceIn(t, dir+"/"+lab.ConfigName, "networkInterface: "+from, "networkInterface: "+mustJSON(t, to))
}

// replaceIn replaces a text in a file, which must have it.
func replaceIn(t *testing.T, file, from, to string) {
	t.Helper()
	text := readFile(t, file)
	if !strings.Contains(text, from) {
		t.Fatalf("%s has no %s", file, from)
	}
	writeFile(t, file, strings.ReplaceAll(text, from, to))
}
