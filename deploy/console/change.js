// What has changed, and what would: the candidate beside the policy in force, and one generation beside another.
import {el, fill, note, short, ago, access, endpoint, plainRule, rule, table, cells, go, link} from "./dom.js";
import {ask, listen} from "./data.js";

const flow = (f) => `${f.protocol} ${endpoint(f.source, f.sourcePort)} to ${endpoint(f.destination, f.destinationPort)}`;
const few = (list) => list.length > 4 ? list.slice(0, 3).join(", ") + ` and ${list.length - 3} more ranges` : list.join(", ");
const decided = (d) => d.ruleName ? `${d.access} by ${rule(d)}` : d.access;

function cut(live, what) {
  return [note(live.cut ? "bad" : "good", `${what} ${live.cut} of ${live.live} live flows.`),
    live.list.length > 0 && table("Live flows that it would cut", ["Flow", "From", "To", "By"], live.list.map((f) => cells({class: "cut"}, el("a", {href: link("ask", {from: f.source, to: f.destination, port: f.destinationPort || "", protocol: f.protocol})}, flow(f)),
      f.from, f.to, f.ruleName ? rule(f) : f.reason))), live.truncated && el("p", {class: "dim"}, "More are left out.")];
}

function sums(title, s) {
  return el("section", null, el("h3", null, `${title}: ${short(s.packets)} packets that begin flows`),
    s.rules.map((r) => el("details", {open: s.rules.length === 1}, el("summary", null, `${r.ruleName ? rule(r) : r.reason}: ${short(r.packets)}`),
      el("ul", null, r.examples.map((p) => el("li", {class: "mono"}, `${flow(p)}, now ${p.access.toLowerCase()}`))))));
}

function candidate(c, cuts) {
  if (!c) return [note("", "No candidate is judged. ", el("code", null, "nsgctl candidate start PATH"), " has a policy judged beside the one in force; nothing of it is enforced.")];
  return [el("p", null, `${c.policy.length ? c.policy.join(", ") : "The daemon's own configuration as it is now"}, begun ${ago(c.began)} by ${c.cause} beside generation ${c.generation}. ${short(c.judged)} new flows and dropped packets were judged.`,
    c.notSeen ? ` ${short(c.notSeen)} came too quickly to be judged.` : ""),
    c.outdated ? note("bad", "Another policy has come into force since: it can't be promoted.") : cut(cuts || c.liveFlows, cuts ? "Now it would cut" : "At its begin it would have cut"),
    sums("Would deny", c.wouldDeny), sums("Would allow", c.wouldAllow),
    el("p", null, el("code", null, "nsgctl candidate promote --confirm 60s"), " takes it; ", el("code", null, "nsgctl candidate abort"), " forgets it.")];
}

function boxes(c) {
  return c.boxes.map((b) => el("li", {title: `${b.sources.join(", ")} to ${b.destinations.join(", ")}`}, `${b.protocol} from ${b.sourceText || few(b.sources)} to ${b.destinationText || few(b.destinations)}`,
    b.destinationPorts && b.destinationPorts.length ? ` port ${few(b.destinationPorts)}` : ""));
}

function diff(d) {
  if (!d.changes.length) return [note("good", "Both allow and deny the same packets.")];
  return [d.changes.map((c) => el("section", {class: "card"}, el("h3", null, c.kind === "allowed" ? el("span", {class: "tag warn"}, "newly allowed") : el("span", {class: "tag deny"}, "newly denied"), ` ${c.direction || ""} ${(c.networkInterfaces || []).join(", ")}`),
    el("p", null, `Was ${decided(c.old)}, is ${decided(c.new)}.`), el("ul", {class: "steps"}, boxes(c)))), d.moreChanges > 0 && note("warn", `${d.moreChanges} further changes are left out.`)];
}

export function show(main, query) {
  const current = el("section"), compared = el("div", {role: "region", "aria-label": "Comparison", "aria-live": "polite"}), past = el("section");
  const old = el("select", {name: "old"}), next = el("select", {name: "new"});
  main.append(el("h2", null, "Candidate"), current, el("h2", null, "Comparison"),
    el("form", {onsubmit: (e) => { e.preventDefault(); go("change", {old: old.value, new: next.value}); }}, el("label", null, "Before", old), el("label", null, "After", next), el("button", {class: "primary"}, "Compare")), compared, past);
  let offered = "", seen = "";
  function offer(change) {
    const all = [...(change.candidate ? ["candidate"] : []), ...change.generations.map(String)];
    if (offered === all.join()) return;
    offered = all.join();
    const named = (g) => g === "candidate" ? "candidate" : "generation " + g + (g === String(change.generation) ? ", in force" : "");
    fill(old, all.map((g) => el("option", {value: g, selected: g === (query.old || String(change.candidate ? change.generation : change.generations[1] || change.generation))}, named(g))));
    fill(next, all.map((g) => el("option", {value: g, selected: g === (query.new || all[0])}, named(g))));
    if (!query.old && all.length > 1) compare(old.value, next.value);
  }
  function compare(a, b) {
    fill(compared, note("", "Comparing."));
    ask("compare", {old: a, new: b}).then((d) => fill(compared, diff(d)), (error) => fill(compared, note("bad", error.message)));
  }
  if (query.old && query.new) compare(query.old, query.new);
  const end = listen("change", {}, {
    change: async (change) => {
      offer(change);
      const cuts = change.candidate && !change.candidate.outdated ? await ask("cuts").catch(() => null) : null;
      const text = JSON.stringify([change, cuts]);
      if (text === seen) return;
      seen = text;
      fill(current, candidate(change.candidate, cuts));
      fill(past, table("Reloads", ["When", "By", "Generation", "Result"], change.reloads.map((r) => cells(null, ago(r.began), r.cause, String(r.generation), r.error ? el("span", {class: "deny"}, r.error) : "taken"))));
    },
    refusal: (text) => fill(current, note("bad", text)),
  });
  return end;
}
