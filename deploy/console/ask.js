// What becomes of packets from one end to another, and why.
import {el, fill, note, short, access, endpoint, plainRule, rule, go, link} from "./dom.js";
import {ask} from "./data.js";

const fieldNames = {protocol: "protocol", source: "source", sourcePort: "source port", destination: "destination", destinationPort: "destination port", priority: "priority"};

// target is how nsgctl explain writes the other end.
function target({to, port, protocol}) {
  const six = to.includes(":") && !/^[a-z]+:/i.test(to);
  const word = (protocol || "").toLowerCase();
  const ports = port && !["icmp", "icmpv6", "esp", "ah", "gre"].includes(word);
  return (six && ports ? `[${to}]` : to) + (ports ? ":" + port : "") + (word ? "/" + word : "");
}

function stage(s) {
  return el("li", null, access(s.access), ` ${s.direction}, ${{subnet: "subnet", networkInterface: "network interface", networkManager: "network manager"}[s.association] || ""}: `,
    el("a", {href: link("rules", {nsg: s.networkSecurityGroup})}, s.networkSecurityGroup), ` ${plainRule(s.ruleName)} (${s.priority})`, s.counters ? el("span", {class: "dim"}, ` ${short(s.counters.hits)} hits`) : "");
}

function leg(l) {
  return el("div", {class: "leg"},
    el("h3", null, `${l.sender || "?"} to ${l.receiver || "nobody"}`),
    el("p", {class: "dim"}, l.nextHop ? `Next hop: ${l.nextHop} ${l.nextHopAddress || ""} ${l.routeTable ? "by " + l.routeTable : ""}` : "", l.platformService ? ` Platform: ${l.platformService}, whatever NSGs say.` : "",
      (l.translations || []).map((t) => ` Translated: ${JSON.stringify(t)}`)),
    l.stages.length ? el("ol", {class: "steps"}, l.stages.map(stage)) : el("p", null, l.platformService ? "" : "No NSG is asked."));
}

function nearest(n) {
  return el("div", {class: "note warn nearest"}, el("strong", null, `Nearest rule that would allow: ${rule(n)} (${n.priority})`),
    el("ul", null, n.fields.map((f) => el("li", null, `${fieldNames[f.name] || f.name}: the rule has ${f.is.join(", ")}, the packet has ${f.wanted}`))));
}

function path(p) {
  const e = p.example;
  return el("section", {class: "card path"},
    el("h2", null, access(p.access), ` ${p.from.join(", ")} to ${p.to.join(", ") || "nobody"}`),
    el("p", null, p.ruleName ? `Decided by ${rule(p)}. ` : `Reason: ${p.reason}. `, p.chosen ? "A load balancer leads some of these packets elsewhere. " : "",
      p.live !== undefined ? `${p.live} live flows. ` : ""),
    p.nearest && nearest(p.nearest),
    el("p", {class: "mono"}, `Example: ${e.protocol} ${endpoint(e.source, e.sourcePort)} to ${endpoint(e.destination, e.destinationPort)}`),
    p.legs.map(leg),
    p.flows && p.flows.length > 0 && el("p", {class: "dim"}, "Live: ", p.flows.map((f) => `${endpoint(f.source, f.sourcePort)} to ${endpoint(f.destination, f.destinationPort)} `)));
}

export function show(main, query) {
  const names = el("datalist", {id: "ends"});
  const field = (name, label, attributes) => el("label", attributes && attributes.wide ? {class: "wide"} : null, label, el("input", {name, value: query[name] || "", spellcheck: "false", autocapitalize: "off", ...attributes, wide: null}));
  const form = el("form", {onsubmit: (e) => { e.preventDefault(); go("ask", Object.fromEntries([...new FormData(form)].map(([k, v]) => [k, v.trim()]))); }},
    field("from", "From: an address, nic:NAME, subnet:NAME, internet …", {list: "ends", required: true, wide: true}),
    field("to", "To", {list: "ends", required: true, wide: true}),
    field("port", "Port", {size: 6, inputmode: "numeric", pattern: "[0-9]{1,5}(-[0-9]{1,5})?"}),
    el("label", null, "Protocol", el("select", {name: "protocol"}, ["", "TCP", "UDP", "ICMP", "ESP", "AH"].map((p) => el("option", {value: p, selected: p === (query.protocol || "").toUpperCase()}, p || "any")))),
    el("button", {class: "primary"}, "Explain"));
  const answer = el("div", {role: "region", "aria-label": "Answer", "aria-live": "polite"});
  main.append(form, names, answer);
  const stop = new AbortController();
  ask("names", {}, stop.signal).then((n) => fill(names, ["internet", ...n.networkInterfaces.map((x) => "nic:" + x), ...n.virtualMachines.map((x) => "vm:" + x), ...n.subnets.map((x) => "subnet:" + x),
    ...n.virtualNetworks.map((x) => "vnet:" + x), ...n.applicationSecurityGroups.map((x) => "asg:" + x)].map((value) => el("option", {value}))), () => {});
  if (query.from && query.to) {
    fill(answer, note("", "Asking."));
    ask("explain", {from: query.from, to: target(query)}, stop.signal).then((x) => {
      fill(answer, x.paths.map(path), x.more && note("warn", "Further kinds of packets are left out."), !x.paths.length && note("warn", "No packet between these ends begins a flow."),
        x.undecided.map((u) => note("warn", `Not decided: ${u.why}`)));
    }, (error) => { if (error.name !== "AbortError") fill(answer, note("bad", error.message)); });
  }
  return () => stop.abort();
}
