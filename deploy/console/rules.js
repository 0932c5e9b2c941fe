// The rules of a network interface or an NSG in the order in which they are asked, with what they do and what is odd about them.
import {plainRule, el, fill, note, short, bits, ago, access, table, cells, go, link} from "./dom.js";
import {ask, listen} from "./data.js";

const words = (list) => list.length > 6 ? list.slice(0, 6).join(", ") + ` and ${list.length - 6} more` : list.join(", ");
const last = (id) => id.split("/").pop();

// spark draws hits of late.
function spark(parts, name) {
  if (!parts) return el("span", {class: "dim"}, "-");
  const most = Math.max(...parts);
  return el("svg", {class: "spark", viewBox: `0 0 ${parts.length * 4} 20`, preserveAspectRatio: "none", role: "img", "aria-label": `${short(parts.reduce((a, b) => a + b, 0))} hits of ${name} in the last hour`},
    parts.map((n, i) => n ? el("rect", {x: i * 4, y: 20 - Math.max(2, 20 * n / most), width: 3, height: Math.max(2, 20 * n / most)}) : null));
}

export function show(main, query) {
  const choice = el("select", {id: "whose"}), unused = el("input", {type: "checkbox"});
  const head = el("p", {class: "dim", role: "status"}), body = el("div");
  let findings = [], view = null, linted = 0, end = () => {};
  main.append(el("form", {onsubmit: (e) => e.preventDefault()},
    el("label", {class: "wide"}, "Network interface or NSG", choice), el("label", {class: "check"}, unused, "only rules that were never hit")), head, body);
  choice.addEventListener("change", () => go("rules", JSON.parse(choice.value)));
  unused.addEventListener("change", draw);

  ask("names").then((names) => {
    const option = (kind) => (name) => el("option", {value: JSON.stringify({[kind]: name}), selected: query[kind] === name}, name);
    fill(choice, names.networkInterfaces.length > 0 && el("optgroup", {label: "Network interfaces"}, names.networkInterfaces.map(option("nic"))),
      names.networkSecurityGroups.length > 0 && el("optgroup", {label: "Network security groups"}, names.networkSecurityGroups.map(option("nsg"))));
    if (!query.nic && !query.nsg) {
      if (!choice.value) return fill(head, "The policy has neither network interfaces nor NSGs.");
      query = JSON.parse(choice.value);
      go("rules", query, true);
    }
    end = listen("rules", {networkInterface: query.nic, networkSecurityGroup: query.nsg}, {
      rules: (v) => { view = v; lint(v.generation); draw(); },
      refusal: (text) => fill(body, note("bad", text)),
    });
  }, (error) => fill(body, note("bad", error.message)));

  function lint(generation) {
    if (linted === generation) return;
    linted = generation;
    ask("lint").then((l) => { findings = l.findings; draw(); }, (error) => fill(head, "Lint: " + error.message));
  }

  // odd are the findings about a rule, or about an NSG.
  const odd = (nsg, direction, rule) => findings.filter((f) => last(f.resource).toLowerCase() === last(nsg).toLowerCase() &&
    (rule ? plainRule(f.rule) === rule && (!f.direction || f.direction === direction) : !f.rule));
  const say = (f) => el("p", {class: "findings " + (f.severity === "info" ? "dim" : "warn")}, `${f.code}: ${f.message}`);

  function draw() {
    if (!view) return;
    const never = view.stages.flatMap((s) => s.rules).filter((r) => !r.counters || !r.counters.hits).length;
    fill(head, `Generation ${view.generation}. ${never} rules were never hit.`, view.more ? ` ${view.more} further rules are left out.` : "");
    if (!view.stages.length) return fill(body, note("warn", "No NSG judges it: everything is allowed."));
    const focus = document.activeElement && body.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    fill(body, view.stages.map((s, n) => el("section", null,
      el("h2", null, `${s.direction}: ${s.networkSecurityGroup}`, s.association ? el("span", {class: "dim"}, ` at the ${{subnet: "subnet", networkInterface: "network interface", networkManager: "network manager"}[s.association]}`) : ""),
      view.stages.findIndex((o) => o.networkSecurityGroup === s.networkSecurityGroup) === n && odd(s.networkSecurityGroup, s.direction).map(say),
      table(`${s.direction} rules of ${s.networkSecurityGroup}`, ["#Priority", "Rule", "Access", "Protocol", "From", "To", "#Hits", "#Bytes", "#Now", "Last hit", "Last hour"],
        s.rules.filter((r) => !unused.checked || !r.counters || !r.counters.hits).map((r) => cells({class: r.counters && r.counters.hits ? "" : "never", "data-rule": r.name},
          r.priority, el("span", null, r.name, odd(s.networkSecurityGroup, s.direction, r.name).map(say)), access(r.access), r.protocol,
          words(r.sources.map(last)) + (r.sourcePorts.join() === "*" || r.sourcePorts.join() === "0-65535" ? "" : " port " + words(r.sourcePorts)),
          words(r.destinations.map(last)) + " port " + words(r.destinationPorts),
          el("span", {class: "num"}, r.counters ? short(r.counters.hits) : ""), el("span", {class: "num"}, r.counters ? short(r.counters.bytes) + "B" : ""),
          el("span", {class: "num"}, r.bytesPerSecond ? bits(r.bytesPerSecond) : r.packetsPerSecond ? short(r.packetsPerSecond) + "/s" : ""),
          el("span", {title: r.lastHit}, ago(r.lastHit)), spark(r.activity, r.name))), true))),
    el("p", null, el("a", {href: link("flows", {filter: query.nic ? `nic "${query.nic}"` : `nsg "${query.nsg}"`})}, "Watch what they decide")));
    if (focus) { const again = [...body.querySelectorAll("[aria-label]")].find((x) => x.getAttribute("aria-label") === focus); if (again) again.focus({preventScroll: true}); }
  }
  return () => end();
}
