"use strict";
// The picture of who calls whom. What it shows is in a table, too.

const svgNS = "http://www.w3.org/2000/svg";
const maxNodes = 24;
const tall = 430;
const halfway = 0.5; // along an edge
// Shapes of the picture. A narrow one would shrink until nobody can read it: it has the names and how
// they are, one below the other, and leaves the figures of the edges to the table.
const wide = { width: 900, middle: { x: 450, y: 215 }, radius: { x: 290, y: 165 }, letters: 24, figures: true };
const narrow = { width: 400, middle: { x: 200, y: 215 }, radius: { x: 70, y: 165 }, letters: 12, figures: false };
let shape = wide;

function draw(name, attributes, text) {
  const e = document.createElementNS(svgNS, name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, String(v));
  if (text !== undefined) e.textContent = text;
  return e;
}

// places puts names on a ring, in their order.
function places(names) {
  return new Map(names.map((n, i) => {
    const a = 2 * Math.PI * i / Math.max(names.length, 1) - Math.PI / 2;
    return [n, { x: shape.middle.x + shape.radius.x * Math.cos(a), y: shape.middle.y + shape.radius.y * Math.sin(a) }];
  }));
}

// arrow draws an edge as a curve, so that calls there and back lie side by side, and its figures, which place puts
// where at says.
function arrow(from, to, bad, lines) {
  const dx = to.x - from.x, dy = to.y - from.y, length = Math.hypot(dx, dy) || 1;
  const across = { x: -dy / length, y: dx / length }; // to the right of who goes along
  const bend = 26;
  const top = { x: (from.x + to.x) / 2 + across.x * 2 * bend, y: (from.y + to.y) / 2 + across.y * 2 * bend };
  const gap = 16, end = Math.hypot(to.x - top.x, to.y - top.y) || 1, begin = Math.hypot(from.x - top.x, from.y - top.y) || 1;
  const a = { x: from.x + (top.x - from.x) / begin * gap, y: from.y + (top.y - from.y) / begin * gap };
  const b = { x: to.x + (top.x - to.x) / end * gap, y: to.y + (top.y - to.y) / end * gap };
  const d = `M${a.x} ${a.y} Q${top.x} ${top.y} ${b.x} ${b.y}`;
  const curve = draw("g", {}), figures = draw("g", { class: "figures" });
  curve.append(draw("path", { d, class: "hit" }), draw("path", { d, class: bad ? "bad" : "", "marker-end": "url(#arrow)" }));
  const texts = lines.map((l) => draw("text", { class: `label${l.bad ? " bad" : ""}`, "text-anchor": "middle" }, l.text));
  figures.append(...texts);
  const at = (t) => { // so far along the curve
    const between = (u, v, w) => (1 - t) ** 2 * u + 2 * t * (1 - t) * v + t ** 2 * w;
    return { x: between(from.x, top.x, to.x), y: between(from.y, top.y, to.y) };
  };
  const place = (t) => texts.forEach((e, i) => {
    e.setAttribute("x", at(t).x);
    e.setAttribute("y", at(t).y + 13 * (i - (lines.length - 1) / 2) + 4);
  });
  place(halfway);
  return { curve, figures, at, place };
}

// settle spreads figures along their edges so that none lies over others, over a name or beyond the picture. Those for
// which there is no room are shown as long as the mouse is on their edge; all of them are in the table.
function settle(arrows, taken) {
  const boxes = taken.map((e) => e.getBBox());
  const sizes = arrows.map((a) => a.figures.getBBox()); // before anything is moved
  const apart = (a, b) => a.x >= b.x + b.width || b.x >= a.x + a.width || a.y >= b.y + b.height || b.y >= a.y + a.height;
  arrows.forEach(({ curve, figures, at, place }, n) => {
    const { x, y, width, height } = sizes[n], old = at(halfway);
    const where = [halfway, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8].find((t) => {
      const box = { x: x + at(t).x - old.x, y: y + at(t).y - old.y, width, height };
      const inside = box.x >= 0 && box.x + width <= shape.width && box.y >= 0 && box.y + height <= tall;
      return inside && boxes.every((other) => apart(box, other)) && boxes.push(box);
    });
    if (where !== undefined) return place(where);
    curve.setAttribute("class", "crowded");
    curve.append(figures);
  });
}

// shorten makes a name fit into the picture.
function shorten(s) {
  const half = shape.letters / 2 - 1;
  return s.length > shape.letters ? s.slice(0, half) + "…" + s.slice(-half) : s;
}

// nameplate writes a name, and how it is, outside the ring, where no edge is.
function nameplate(p, name, state) {
  const { middle } = shape;
  const lines = [name];
  if (state) shape.figures ? lines[0] += ` (${state})` : lines.push(state);
  const aside = Math.abs(p.x - middle.x) > 60;
  const x = aside ? p.x + 15 * Math.sign(p.x - middle.x) : p.x;
  const y = aside ? p.y + 4 : p.y + (p.y < middle.y ? -15 - 14 * (lines.length - 1) : 25);
  const anchor = aside ? (p.x > middle.x ? "start" : "end") : "middle";
  return lines.map((l, i) => draw("text", { x, y: y + 14 * i, "text-anchor": anchor, class: i ? "label" : "" }, l));
}

const telephone = matchMedia("(max-width: 600px)");

// drawGraph draws edges (from, to, bad, lines of text) between plugins of which health says how they are.
function drawGraph(svg, edges, health) {
  shape = telephone.matches ? narrow : wide;
  svg.setAttribute("viewBox", `0 0 ${shape.width} ${tall}`);
  const all = [...new Set(edges.flatMap((e) => [e.from, e.to]))].sort();
  const names = all.slice(0, maxNodes);
  const place = places(names);
  const marker = draw("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" });
  marker.append(draw("path", { d: "M0 0 L8 4 L0 8 z" }));
  const defs = draw("defs", {});
  defs.append(marker);
  const arrows = [], nodes = [];
  const between = new Map();
  for (const e of edges) {
    const key = JSON.stringify([e.from, e.to]);
    const b = between.get(key) || { from: e.from, to: e.to, bad: false, lines: [] };
    b.bad ||= e.bad;
    b.lines.push({ text: e.text, bad: e.bad });
    between.set(key, b);
  }
  for (const b of between.values()) {
    const from = place.get(b.from), to = place.get(b.to);
    if (!from || !to || from === to) continue;
    arrows.push(arrow(from, to, b.bad, b.lines));
  }
  for (const n of names) {
    const p = place.get(n), h = health.get(n);
    nodes.push(draw("circle", { cx: p.x, cy: p.y, r: 9, class: h ? h.className : "" }));
    nodes.push(...nameplate(p, shorten(n), h?.text));
  }
  if (!names.length) nodes.push(draw("text", { x: shape.middle.x, y: shape.middle.y, "text-anchor": "middle" }, "no calls yet"));
  if (all.length > names.length) nodes.push(draw("text", { x: 10, y: 420 }, `${all.length - names.length} more in the table`));
  const figures = shape.figures ? arrows.map((a) => a.figures) : [];
  svg.replaceChildren(defs, ...arrows.map((a) => a.curve), ...figures, ...nodes);
  if (shape.figures) settle(arrows, nodes);
}
