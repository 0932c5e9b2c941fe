// The views, by the part of the address behind #. Whatever a view shows is in its address, so that a link leads there again.
import {el, fill, note} from "./dom.js";
import {ask} from "./data.js";
import * as map from "./map.js";

// The map is what opens first; the others are read when they are asked for.
const views = {
  map: async () => map, rules: () => import("./rules.js"), flows: () => import("./flows.js"), ask: () => import("./ask.js"), change: () => import("./change.js"),
};
const titles = {map: "Map", rules: "Rules", flows: "Flows and drops", ask: "Ask", change: "Change"};
const main = document.getElementById("main");
let leave = () => {};
let turn = 0;

// here is the view and its query.
function here() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return [views[path] ? path : "map", Object.fromEntries(new URLSearchParams(query || ""))];
}

async function show() {
  if (location.hash === "#main") return; // the skip link
  const [name, query] = here();
  const mine = ++turn;
  leave();
  leave = () => {};
  document.title = titles[name] + " - nsgd console";
  for (const a of document.querySelectorAll("nav a")) {
    if (a.hash === "#/" + name) a.setAttribute("aria-current", "page"); else a.removeAttribute("aria-current");
  }
  try {
    const view = await views[name]();
    if (mine !== turn) return;
    main.className = view.fills ? "fill" : "";
    fill(main, el("h1", null, titles[name]));
    leave = view.show(main, query) || leave;
  } catch (error) {
    fill(main, note("bad", error.message));
  }
}

addEventListener("hashchange", show);
addEventListener("keydown", (e) => {
  if (e.altKey || e.ctrlKey || e.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
  const view = Object.keys(views)[Number(e.key) - 1];
  if (view) location.hash = "#/" + view;
  if (e.key === "/") {
    const field = main.querySelector("input");
    if (field) { field.focus(); e.preventDefault(); }
  }
});
show();
ask("status").then((s) => { document.getElementById("version").textContent = s.version; }, () => {});
