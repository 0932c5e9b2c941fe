// Who is where, and what goes between them.
import {el, fill, note, bits, short, rule, endpoint, access, table, cells, link} from "./dom.js";
import {listen} from "./data.js";

const nodeHeight = 46, gap = 14, labelled = 24;

// why is the address of the question behind an edge.
function why(edge) {
  const e = edge.example;
  return link("ask", {from: e.source, to: e.destination, port: e.destinationPort || "", protocol: e.protocol});
}

// name is what decided.
const name = (e) => e.rule ? rule(e.rule) : e.platformService ? "platform: " + e.platformService : e.reason || "no NSG";
const rate = (e) => e.access === "Allow" ? bits(e.bytesPerSecond) : short(e.packetsPerSecond) + " packets/s";

// layout gives each node its place for a width.
function layout(map, width) {
  const places = map.nodes.map(() => null), margin = 12;
  let y = margin;
  const outer = map.nodes.map((n, i) => i).filter((i) => map.nodes[i].parent < 0 && map.nodes[i].kind !== "virtualNetwork");
  y = flow(outer, margin, y, width - 2 * margin, 150) + 74; // room for edges and their labels
  for (const [v, network] of map.nodes.entries()) {
    if (network.kind !== "virtualNetwork") continue;
    const subnets = map.nodes.map((n, i) => i).filter((i) => map.nodes[i].parent === v);
    const inside = width - 2 * margin - 24;
    const columns = Math.max(1, Math.min(subnets.length, Math.floor(inside / 190)));
    const wide = (inside - gap * 2 * (columns - 1)) / columns;
    const top = y;
    y += 30;
    for (let at = 0; at < subnets.length; at += columns) {
      let bottom = y;
      subnets.slice(at, at + columns).forEach((s, column) => {
        const x = margin + 12 + column * (wide + gap * 2);
        const nics = map.nodes.map((n, i) => i).filter((i) => map.nodes[i].parent === s);
        const end = nics.length ? flow(nics, x + 8, y + 44, wide - 16, 150) + 8 : y + 52;
        places[s] = {x, y, w: wide, h: end - y};
        bottom = Math.max(bottom, end);
      });
      for (const s of subnets.slice(at, at + columns)) places[s].h = bottom - y;
      y = bottom + gap * 2;
    }
    places[v] = {x: margin, y: top, w: width - 2 * margin, h: y - top};
    y += 50;
  }
  return {places, height: Math.max(y - 50 + margin, 200)};

  // flow sets nodes side by side, and in rows.
  function flow(list, x, top, room, least) {
    const columns = Math.max(1, Math.min(list.length, Math.floor((room + gap) / (least + gap))));
    const wide = Math.min(230, (room - gap * (columns - 1)) / columns);
    list.forEach((i, n) => {
      places[i] = {x: x + (n % columns) * (wide + gap), y: top + Math.floor(n / columns) * (nodeHeight + 26), w: wide, h: nodeHeight};
    });
    return list.length ? top + (Math.ceil(list.length / columns) - 1) * (nodeHeight + 26) + nodeHeight : top;
  }
}

// cut shortens a text to a width.
const cut = (text, width) => text.length * 6.9 > width ? text.slice(0, Math.max(4, Math.floor(width / 6.9) - 1)) + "…" : text;

function box(n, p) {
  const kind = {virtualNetwork: "box", subnet: "sub"}[n.kind] || "node";
  const words = {virtualNetwork: "virtual network ", subnet: "subnet ", loadBalancer: "load balancer ", gateway: "gateway "}[n.kind] || "";
  const shown = n.kind === "subnet" ? n.name.split("/").pop() : n.name;
  const nsg = n.networkSecurityGroup;
  const rules = nsg ? link("rules", n.kind === "networkInterface" ? {nic: n.name} : {nsg}) : n.kind === "networkInterface" ? link("rules", {nic: n.name}) : null;
  const inside = el("g", null,
    el("rect", {class: kind, x: p.x, y: p.y, width: p.w, height: p.h, rx: 6}),
    el("text", {x: p.x + 10, y: p.y + 19}, cut(words + shown, p.w - 16)),
    el("text", {x: p.x + 10, y: p.y + 35, class: "small"}, cut((kind === "box" ? "" : n.addresses[0] || "") + (nsg ? "  " + nsg : ""), p.w - 16)),
    el("title", null, [words + n.name, ...n.addresses, nsg ? "NSG " + nsg : "", n.attached ? "" : "no device leads here"].filter(Boolean).join("\n")));
  const group = el("g", {class: n.attached ? "" : "off", "data-node": n.name});
  if (rules) group.append(el("a", {xlink: 1, href: rules}, inside)); else group.append(inside);
  return group;
}

// wire is the line of an edge: between the sides of both boxes that are nearest, bent so that edges of one pair part.
function wire(a, b, bend) {
  const ca = {x: a.x + a.w / 2, y: a.y + a.h / 2}, cb = {x: b.x + b.w / 2, y: b.y + b.h / 2};
  const level = Math.abs(ca.y - cb.y) < nodeHeight;
  const from = level ? {x: ca.x, y: a.y + a.h} : {x: ca.x + bend * 26, y: ca.y < cb.y ? a.y + a.h : a.y};
  const to = level ? {x: cb.x, y: b.y + b.h} : {x: cb.x + bend * 26, y: ca.y < cb.y ? b.y : b.y + b.h};
  if (level) { from.x += bend * 12; to.x += bend * 12; }
  const sag = level ? 26 + Math.abs(bend) * 22 + Math.abs(ca.x - cb.x) * 0.04 : 0;
  const mid = {y: (from.y + to.y) / 2 + sag}, down = ca.y < cb.y, near = Math.min(38, Math.abs(to.y - from.y) / 2);
  const d = level ? `M${from.x} ${from.y}Q${(from.x + to.x) / 2} ${mid.y + sag} ${to.x} ${to.y}` : `M${from.x} ${from.y}C${from.x + bend * 40} ${mid.y} ${to.x + bend * 40} ${mid.y} ${to.x} ${to.y}`;
  // What is written at a line stands near its upper end, where there is room.
  const upper = down ? from : to, lower = down ? to : from;
  const at = level ? {x: (from.x + to.x) / 2, y: mid.y} : {x: upper.x + (lower.x - upper.x) * 0.15 + bend * 24, y: upper.y + near};
  return {d, mid: at, to, down: !level && down};
}

// bow is the line of what stays at one node.
function bow(p, bend) {
  const x = p.x + p.w, y = p.y + 10 + bend * 6;
  return {d: `M${x} ${y}c30 -8 30 32 0 24`, mid: {x: x - 20, y: y + 36}, to: {x, y: y + 24}, side: true};
}

export function show(main) {
  const head = el("p", {class: "dim"}, "Waiting for the first reading.");
  const picture = el("div"), list = el("div");
  main.append(head, picture, list);
  let map = null, traffic = null, plan = null;

  function draw() {
    const width = Math.max(320, Math.round(picture.clientWidth));
    if (!map) return;
    if (!plan || plan.width !== width || plan.map !== map) plan = {width, map, ...layout(map, width)};
    const focused = document.activeElement && document.activeElement.getAttribute("data-edge");
    const svg = el("svg", {class: "map", viewBox: `0 0 ${width} ${plan.height}`, height: plan.height, role: "group", "aria-label": "Map of the virtual networks with live traffic"});
    map.nodes.forEach((n, i) => plan.places[i] && svg.append(box(n, plan.places[i])));
    map.nodes.forEach((n, i) => (n.members || []).forEach((m) => plan.places[m] && svg.append(el("path", {class: "member", d: wire(plan.places[i], plan.places[m], 0).d}))));
    if (traffic && traffic.generation === map.generation) edges(svg);
    fill(picture, svg);
    if (focused) { const again = svg.querySelector(`[data-edge="${CSS.escape(focused)}"]`); if (again) again.focus(); }
  }

  function edges(svg) {
    const met = {}, plates = [];
    traffic.edges.forEach((e, n) => {
      const a = plan.places[e.from], b = plan.places[e.to];
      if (!a || !b) return;
      const pair = [e.from, e.to].sort((x, y) => x - y).join("-");
      const nth = met[pair] = (met[pair] || 0) + 1;
      const bend = (nth % 2 ? 1 : -1) * Math.floor(nth / 2);
      const w = e.from === e.to ? bow(a, nth) : wire(a, b, bend);
      let path = w.d;
      if (e.via >= 0 && plan.places[e.via]) path = wire(a, plan.places[e.via], bend).d + wire(plan.places[e.via], b, bend).d;
      const cls = e.access === "Allow" ? "allow" : "deny";
      const key = `${e.from} ${e.to} ${e.via} ${e.access}`;
      const text = `${name(e)}${e.others ? " +" + e.others : ""} ${rate(e)}`;
      const what = `${e.access} from ${map.nodes[e.from].name} to ${map.nodes[e.to].name}: ${text}`;
      const group = el("a", {xlink: 1, class: "edge " + cls, href: why(e), "data-edge": key, "aria-label": what},
        el("title", null, what), el("path", {class: "reach", d: path}), el("path", {class: "wire", d: path}), arrow(w, cls));
      if (n < labelled && e.packetsPerSecond > 0) {
        const long = text.length * 6.2 + 8;
        const at = {x: Math.min(Math.max(w.mid.x, long / 2 + 2), plan.width - long / 2 - 2), y: w.mid.y};
        while (plates.some((p) => Math.abs(p.y - at.y) < 16 && Math.abs(p.x - at.x) < (p.long + long) / 2)) at.y += 16;
        plates.push({...at, long});
        group.append(el("rect", {class: "plate", x: at.x - long / 2, y: at.y - 9, width: long, height: 16, rx: 4}),
          el("text", {x: at.x, y: at.y + 3, "text-anchor": "middle"}, text));
      }
      svg.append(group);
    });
  }

  function arrow(w, cls) {
    const {x, y} = w.to;
    const points = w.side ? `${x},${y} ${x + 8},${y - 5} ${x + 8},${y + 5}` : w.down ? `${x},${y} ${x - 5},${y - 9} ${x + 5},${y - 9}` : `${x},${y} ${x - 5},${y + 9} ${x + 5},${y + 9}`;
    return el("polygon", {class: "head " + cls, points});
  }

  function rows() {
    if (!traffic || !map || traffic.generation !== map.generation) return;
    const t = traffic.traffic;
    fill(head, `${short(traffic.flowTable.live)} live flows, ${short(t.packetsPerSecond)} packets/s, ${bits(t.bytesPerSecond)}, ${short(t.dropsPerSecond)} dropped/s. `,
      map.hidden ? `${map.hidden} network interfaces are shown as part of their subnet. ` : "", traffic.more ? `${traffic.more} further edges are left out.` : "");
    if (list.contains(document.activeElement)) return; // nobody's place in the table moves
    fill(list, table("Traffic now", ["From", "To", "Decision", "By", "#Flows", "#Rate", "Example"], traffic.edges.map((e) => cells({class: e.access === "Allow" ? "allowed" : "denied"},
      map.nodes[e.from].name, map.nodes[e.to].name + (e.via >= 0 ? " by " + map.nodes[e.via].name : ""), access(e.access), name(e) + (e.others ? ` +${e.others}` : ""),
      e.access === "Allow" ? e.flows : "", el("span", {class: "num"}, rate(e)),
      el("a", {href: why(e)}, `${e.example.protocol} ${e.example.source} to ${endpoint(e.example.destination, e.example.destinationPort)}`)))));
  }

  const end = listen("map", {}, {
    map: (m) => { map = m; draw(); },
    traffic: (t) => { traffic = t; draw(); rows(); },
    refusal: (text) => fill(head, note("bad", text)),
  });
  const resize = new ResizeObserver(draw);
  resize.observe(picture);
  return () => { end(); resize.disconnect(); };
}
