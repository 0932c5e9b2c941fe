// What begins and what is dropped, live; the live flows; and what was dropped of late.
import {el, fill, note, short, bits, clock, ago, endpoint, rule, access, plainRule, save, go, link} from "./dom.js";
import {ask, listen} from "./data.js";
import {grid} from "./grid.js";

export const fills = true;

// most is how many packets are kept; flowsEvery and dropsEvery say how often lists are asked for again, in milliseconds.
const most = 10000, flowsEvery = 3000, dropsEvery = 5000;
const kinds = {decided: "New flows and drops", denied: "Drops only", all: "Every packet", flows: "Live flows", drops: "Dropped in the last hour"};

const by = (stages) => stages && stages.length ? rule(stages[stages.length - 1]) : "";
const both = (r) => `${endpoint(r.source, r.sourcePort)} → ${endpoint(r.destination, r.destinationPort)}`;

const packetColumns = [
  {title: "Time", width: "100px", narrow: 3, text: (r) => clock(r.time)},
  {title: "Access", width: "60px", narrow: 1, class: "access", text: (r) => r.access},
  {title: "From", width: "minmax(70px,1fr)", text: (r) => r.from || "?"},
  {title: "To", width: "minmax(70px,1fr)", text: (r) => r.to || "?"},
  {title: "Protocol", width: "70px", text: (r) => r.protocol + (r.tcpFlags ? " " + r.tcpFlags : "")},
  {title: "Source and destination", width: "minmax(230px,3fr)", narrow: 2, class: "mono", text: both},
  {title: "By", width: "minmax(140px,2fr)", narrow: 4, text: (r) => by(r.stages) || r.platformService || r.reason || ""},
  {title: "Bytes", width: "60px", text: (r) => short(r.length)},
];
const flowColumns = [
  {title: "State", width: "110px", narrow: 3, text: (r) => r.state},
  {title: "From", width: "minmax(70px,1fr)", text: (r) => r.from || "?"},
  {title: "To", width: "minmax(70px,1fr)", text: (r) => r.to || "?"},
  {title: "Protocol", width: "70px", text: (r) => r.protocol},
  {title: "Source and destination", width: "minmax(230px,3fr)", narrow: 2, class: "mono", text: both},
  {title: "By", width: "minmax(140px,2fr)", narrow: 4, text: (r) => by(r.rules) || r.platformService || ""},
  {title: "Rate", width: "90px", narrow: 1, text: (r) => bits(r.bytesPerSecond)},
  {title: "Bytes", width: "70px", text: (r) => short(r.bytesSent + r.bytesReceived)},
];
const dropColumns = [
  {title: "Packets", width: "80px", narrow: 1, text: (r) => short(r.packets)},
  {title: "Reason", width: "120px", class: "access", text: (r) => r.reason},
  {title: "From", width: "minmax(70px,1fr)", text: (r) => r.from || "?"},
  {title: "To", width: "minmax(70px,1fr)", text: (r) => r.to || "?"},
  {title: "Protocol", width: "70px", text: (r) => r.protocol || ""},
  {title: "Source and destination", width: "minmax(230px,3fr)", narrow: 2, class: "mono", text: (r) => r.others ? "others" : both(r)},
  {title: "By", width: "minmax(140px,2fr)", narrow: 4, text: (r) => r.ruleName ? rule(r) : r.reason},
  {title: "Last", width: "90px", narrow: 3, text: (r) => ago(r.last)},
];

// why says what is known about a row, and leads to more.
function why(r) {
  const stages = r.stages || (r.rules || []).map((x) => ({...x, ruleName: x.name, access: "Allow"}));
  return [el("h2", null, r.access ? access(r.access) : "", ` ${r.protocol || ""} ${r.others ? "others" : both(r)}`),
    el("p", null, `From ${r.from || "unknown"} to ${r.to || "unknown"}. `, r.reason ? `Reason: ${r.reason}. ` : "", r.flow ? `Flow: ${r.flow}. ` : "", r.state ? `State: ${r.state}. ` : "",
      r.arrives ? `Arrives as ${both(r.arrives)}. ` : "", r.translated ? `Arrives as ${both(r.translated)}. ` : "", r.generation ? `Generation ${r.generation}.` : ""),
    el("ol", {class: "steps"}, stages.map((s) => el("li", null, access(s.access), ` ${s.direction} ${s.association || ""}: `,
      el("a", {href: link("rules", {nsg: s.networkSecurityGroup})}, s.networkSecurityGroup), " ", plainRule(s.ruleName), s.priority ? ` (${s.priority})` : ""))),
    r.ruleName ? el("p", null, `Denied ${r.direction.toLowerCase()} by `, el("a", {href: link("rules", {nsg: r.networkSecurityGroup})}, r.networkSecurityGroup), " " + plainRule(r.ruleName)) : "",
    r.source ? el("p", null, el("a", {href: link("ask", {from: r.source, to: r.destination, port: r.destinationPort || "", protocol: r.protocol})}, "Explain it, and the nearest rule that would allow it")) : ""];
}

export function show(main, query) {
  const kind = kinds[query.kind] ? query.kind : "decided", live = ["decided", "denied", "all"].includes(kind);
  const filter = el("input", {value: query.filter || "", placeholder: "tcp and port 443 and not nic web", "aria-describedby": "language", spellcheck: "false", autocapitalize: "off"});
  const what = el("select", null, Object.entries(kinds).map(([value, text]) => el("option", {value, selected: value === kind}, text)));
  const pause = el("button", {type: "button", "aria-pressed": "false"}, "Pause");
  const head = el("p", {class: "dim", role: "status"}, live ? "Waiting for packets." : "");
  const details = el("div", {class: "why", role: "region", "aria-label": "Why", "aria-live": "polite", tabindex: 0});
  let rows = [], fresh = [], paused = false, missed = 0, skipped = 0, timer = 0, waiting = false, ended = false;
  const columns = kind === "flows" ? flowColumns : kind === "drops" ? dropColumns : packetColumns;
  const table = grid(kinds[kind], columns, (r) => fill(details, why(r)));
  const again = () => go("flows", {filter: filter.value.trim(), kind: what.value === "decided" ? "" : what.value});

  main.append(
    el("form", {onsubmit: (e) => { e.preventDefault(); again(); }},
      el("label", {class: "wide"}, "Filter, as of nsgctl trace", filter), el("label", null, "What", what), el("button", {class: "primary"}, "Show"), live && pause,
      el("button", {type: "button", onclick: lines}, "JSON lines"),
      kind !== "flows" && kind !== "drops" && el("button", {type: "button", onclick: capture, title: "The headers of the next packets that the filter takes, for ten seconds"}, "Record pcapng")),
    el("p", {class: "skip", id: "language"}, "For example: src host 10.0.1.4 and tcp and port 443, verdict deny, nsg NSG1, rule NAME, reason NAME, nic NAME."),
    head, table.box, details);
  what.addEventListener("change", again);
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", paused);
    pause.textContent = paused ? "Go on" : "Pause";
    draw();
  });

  // draw takes what has come since, the newest first.
  function draw() {
    waiting = false;
    if (ended) return;
    if (!paused && fresh.length) {
      const added = fresh.length;
      rows = fresh.reverse().concat(rows).slice(0, most);
      fresh = [];
      table.set(rows, added);
    }
    fill(head, `${rows.length} packets`, paused ? `, paused: ${fresh.length} more wait` : "", missed ? `, ${short(missed)} came too quickly for this page` : "", skipped ? `, ${short(skipped)} beyond 1,000 a second were left out` : "", ".");
  }

  function take(event) {
    missed += event.missed;
    for (const line of event.packets) {
      if (line.summary) { skipped = line.summary.skipped + line.summary.lost; continue; }
      const p = line.packet;
      p.class = p.access === "Allow" ? "allow" : "deny";
      fresh.push(p);
    }
    if (fresh.length > most) { missed += fresh.length - most; fresh = fresh.slice(-most); }
    if (!waiting) { waiting = true; requestAnimationFrame(draw); }
  }

  function lines() {
    save("nsgd.jsonl", "application/x-ndjson", rows.map((r) => { const {class: _, ...plain} = r; return JSON.stringify(plain); }).join("\n") + "\n");
  }

  function capture() {
    const q = new URLSearchParams({filter: filter.value.trim(), seconds: 10});
    if (kind === "denied") q.set("denied", "true");
    el("a", {href: "data/capture?" + q, download: "nsgd.pcapng"}).click();
  }

  async function list() {
    try {
      if (!document.hidden && !paused) {
        const answer = await ask(kind, kind === "flows" ? {filter: query.filter, limit: most} : {filter: query.filter, since: "1h"});
        if (ended) return;
        rows = (answer.flows || answer.pairs).map((r) => ({...r, class: kind === "drops" ? "deny" : ""}));
        table.set(rows);
        fill(head, kind === "flows" ? `${rows.length} of ${answer.matching} live flows, those with the highest rates first.`
          : `${rows.length} pairs since ${clock(answer.from).slice(0, 8)}.` + (answer.notSeen ? ` ${short(answer.notSeen)} packets came too quickly to be told apart.` : ""));
      }
      if (!ended) timer = setTimeout(list, kind === "flows" ? flowsEvery : dropsEvery);
    } catch (error) {
      if (!ended) fill(head, note("bad", error.message));
    }
  }

  const end = live ? listen("packets", {filter: query.filter, kind}, {packets: take, refusal: (text) => fill(head, note("bad", text))}) : () => {};
  if (!live) list();
  return () => { ended = true; end(); clearTimeout(timer); table.end(); };
}
