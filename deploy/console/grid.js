// A table of very many rows. Only those that are seen are elements; they are used again as one scrolls.
import {el} from "./dom.js";

const pageOfKeys = 15;

// grid makes a table: columns have a title, a text of a row, and a width. On a phone, rows have the columns with a place
// from 1 to 4 alone, in two lines.
export function grid(label, columns, open) {
  const rows = el("div", {class: "rows", role: "rowgroup"});
  const heads = el("div", {class: "headrow", role: "row", "aria-rowindex": 1}, columns.map((c) => el("span", {role: "columnheader"}, c.title)));
  const box = el("div", {class: "grid", role: "grid", tabindex: 0, "aria-label": label, "aria-readonly": "true"}, el("div", {role: "rowgroup"}, heads), rows);
  box.style.setProperty("--columns", columns.map((c) => c.width).join(" "));
  box.style.setProperty("--least", "900px");
  const pool = [];
  let list = [], chosen = null, waiting = false, height = 28, first = -1, stale = true;

  function line() {
    const cells = columns.map((c) => el("span", {role: "gridcell", class: (c.class || "") + (c.narrow ? " n" + c.narrow : " wideonly")}));
    const one = el("div", {class: "row", role: "row"}, cells);
    one.id = `${label.replace(/\W+/g, "-")}-${pool.length}`;
    const made = {one, cells, texts: [], at: -1, shown: null};
    one.addEventListener("click", () => { if (made.shown) choose(made.shown); });
    rows.append(one);
    return made;
  }

  function choose(row) {
    chosen = row;
    stale = true;
    later();
    open(row);
  }

  function paint() {
    waiting = false;
    const many = Math.ceil((box.clientHeight || 400) / height) + 6;
    const from = Math.max(0, Math.min(list.length - many, Math.floor(box.scrollTop / height) - 3));
    if (from === first && !stale) return;
    first = from;
    stale = false;
    while (pool.length < Math.min(many, list.length)) pool.push(line());
    for (let n = 0; n < pool.length; n++) {
      const at = from + n, row = n < many ? list[at] : undefined, made = pool[at % pool.length];
      if (!row) continue;
      if (made.at !== at) {
        made.one.style.transform = `translateY(${at * height}px)`;
        made.one.setAttribute("aria-rowindex", at + 2);
        made.at = at;
      }
      const selected = row === chosen;
      if (made.shown === row && made.selected === selected) continue;
      made.shown = row;
      made.selected = selected;
      made.one.className = "row " + (row.class || "");
      made.one.setAttribute("aria-selected", selected);
      if (selected) box.setAttribute("aria-activedescendant", made.one.id);
      columns.forEach((c, i) => {
        const text = c.text(row);
        if (made.texts[i] !== text) made.cells[i].textContent = made.texts[i] = text;
      });
    }
    for (const made of pool) made.one.hidden = made.at < from || made.at >= Math.min(from + many, list.length);
  }

  function later() {
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(paint);
    }
  }

  function see(at) {
    const top = at * height, head = heads.offsetHeight;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + height + head > box.scrollTop + box.clientHeight) box.scrollTop = top + height + head - box.clientHeight;
  }

  box.addEventListener("scroll", later, {passive: true});
  box.addEventListener("keydown", (e) => {
    const at = list.indexOf(chosen);
    const to = {ArrowDown: at + 1, ArrowUp: at < 0 ? 0 : at - 1, Home: 0, End: list.length - 1, PageDown: at + pageOfKeys, PageUp: at - pageOfKeys}[e.key];
    if (to === undefined || !list.length) return;
    e.preventDefault();
    const next = Math.max(0, Math.min(list.length - 1, to));
    see(next);
    choose(list[next]);
  });
  const observer = new ResizeObserver(() => {
    height = matchMedia("(max-width: 640px)").matches ? 48 : 28;
    rows.style.height = list.length * height + "px";
    for (const made of pool) made.at = -1;
    stale = true;
    later();
  });
  observer.observe(box);

  return {
    box,
    // set shows other rows. added says how many of them came before the first one: what is seen stays where it is.
    set(next, added = 0) {
      const keep = added > 0 && box.scrollTop > height;
      list = next;
      rows.style.height = list.length * height + "px";
      box.setAttribute("aria-rowcount", list.length + 1);
      if (keep) box.scrollTop += added * height;
      stale = true;
      later();
    },
    end: () => observer.disconnect(),
  };
}
