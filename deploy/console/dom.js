// Elements are made by name; whatever the daemon says becomes text, never markup.

const svgNames = new Set(["svg", "g", "path", "rect", "text", "tspan", "title", "circle", "polygon"]);

// el makes an element: attributes, on* listeners, and children that are elements or texts.
export function el(name, attributes, ...children) {
  const svg = svgNames.has(name) || attributes && "xlink" in attributes;
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false || key === "xlink") continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false).map((c) => c instanceof Node ? c : String(c)));
  return made;
}

// fill puts other children into an element.
export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false).map((c) => c instanceof Node ? c : String(c)));
}

const steps = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

// short is a number of three digits or so.
export function short(n) {
  for (const [size, letter] of steps) {
    if (n >= size) return (n / size).toPrecision(3).replace(/\.?0+$/, "") + letter;
  }
  return n >= 100 || Number.isInteger(n) ? String(Math.round(n)) : String(Number(n.toPrecision(2)));
}

// bits is a rate in bits.
export const bits = (bytesPerSecond) => short(bytesPerSecond * 8) + "bit/s";

// ago says how long ago a time was.
export function ago(text) {
  if (!text) return "never";
  const s = Math.max(0, (Date.now() - Date.parse(text)) / 1000);
  if (s < 60) return Math.round(s) + " s ago";
  if (s < 3600) return Math.round(s / 60) + " min ago";
  if (s < 172800) return Math.round(s / 3600) + " h ago";
  return Math.round(s / 86400) + " days ago";
}

// clock is the time of day.
export function clock(text) {
  const d = new Date(text);
  return isNaN(d) ? "" : d.toTimeString().slice(0, 8) + "." + String(d.getMilliseconds()).padStart(3, "0");
}

// endpoint is ADDRESS:PORT.
export const endpoint = (address, port) => !port ? address : address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;

// note is a message.
export const note = (kind, ...children) => el("p", {class: "note " + kind}, ...children);

// access is Allow or Deny, in its colour and in letters.
export const access = (word) => el("span", {class: "tag " + (word === "Allow" ? "allow" : "deny")}, word);

// rule names a rule with its NSG.
export const rule = (r) => !r ? "" : r.networkSecurityGroup ? r.networkSecurityGroup + "/" + plainRule(r.name || r.ruleName) : plainRule(r.name || r.ruleName || "");

// plainRule leaves out the kind of a rule's qualified name.
export const plainRule = (name) => name.replace(/^(security|defaultSecurity|admin)Rules\//, "");

// table is a table with a caption and headings; a heading that begins with # is of numbers. hush
// leaves the caption to screen readers.
export function table(caption, headings, rows, hush) {
  const names = headings.map((h) => h.replace(/^#/, ""));
  for (const row of rows) [...row.children].forEach((cell, i) => cell.setAttribute("data-name", names[i])); // for narrow screens
  return el("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": caption},
    el("table", {role: "table"}, el("caption", {class: hush && "hush"}, caption),
      el("thead", {role: "rowgroup"}, el("tr", {role: "row"}, headings.map((h, i) => el("th", {scope: "col", role: "columnheader", class: h[0] === "#" && "num"}, names[i])))),
      el("tbody", {role: "rowgroup"}, rows)));
}

// cells makes a row.
export const cells = (attributes, ...values) => el("tr", {role: "row", ...attributes},
  values.map((v) => el("td", {role: "cell", class: (typeof v === "number" || v instanceof Element && v.classList.contains("num")) && "num"}, v)));

// save has the browser keep a text as a file.
export function save(name, type, text) {
  const link = el("a", {href: URL.createObjectURL(new Blob([text], {type})), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// link is the address of a view.
export function link(view, query = {}) {
  const q = new URLSearchParams(Object.entries(query).filter(([, v]) => v));
  return `#/${view}${String(q) && "?" + q}`;
}

// go opens a view; with replace, its address takes the place of the one that is shown already.
export function go(view, query, replace) {
  const to = link(view, query);
  if (location.hash === to) return;
  if (replace) history.replaceState(null, "", to); else location.hash = to;
}
