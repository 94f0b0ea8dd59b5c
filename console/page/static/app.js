"use strict";
// Everything that a host sends is text, wherever it came from: it gets into the page with textContent
// and setAttribute only. The policy of the page lets no string become markup or code.

const svgNS = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const state = { writable: false, before: new Map(), at: 0, denials: [] };
const maxDenials = 50;

function make(name, text, className) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  return e;
}

function draw(name, attributes, text) {
  const e = document.createElementNS(svgNS, name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, String(v));
  if (text !== undefined) e.textContent = text;
  return e;
}

function rows(id, list) {
  byId(id).tBodies[0].replaceChildren(...list.map((cells) => {
    const tr = make("tr");
    tr.append(...cells.map((c) => c instanceof Node ? c : make("td", c === undefined ? "" : String(c))));
    return tr;
  }));
}

const word = (s, prefix) => (s || "").replace(prefix, "").toLowerCase().replaceAll("_and_", " + ").replaceAll("_", " ");
const millis = (d) => d === undefined ? "" : `${Math.round(parseFloat(d) * 1000)} ms`;
const count = (n) => Number(n || 0);

// rated adds to each edge how many calls a second it had since the snapshot before.
function rated(edges, taken) {
  const at = Date.parse(taken) / 1000;
  const now = new Map();
  const out = edges.map((e) => {
    const key = JSON.stringify([e.caller, e.provider, e.type]);
    const calls = count(e.calls);
    const failed = count(e.callerFaults) + count(e.providerFaults);
    const was = state.before.get(key) || { calls: state.at ? 0 : calls, failed: state.at ? 0 : failed };
    now.set(key, { calls, failed });
    const seconds = Math.max(at - state.at, 0.2);
    return { ...e, count: calls, failed, rate: (calls - was.calls) / seconds, failing: failed > was.failed };
  });
  state.before = now;
  state.at = at;
  return out;
}

function showEdges(edges) {
  rows("edges", edges.map((e) => {
    const failed = make("td", e.failed ? `${e.failed} (${(100 * e.failed / e.count).toFixed(1)}%)` : "0", e.failed ? "bad" : "");
    return [e.caller, e.provider || "nobody", e.type, e.rate.toFixed(1), e.count, failed, millis(e.median), millis(e.slow), e.lastCode || ""];
  }));
}

function showGraph(edges, plugins) {
  const svg = byId("graph");
  const names = [...new Set(edges.flatMap((e) => [e.caller, e.provider || "nobody"]))].sort().slice(0, 24);
  const health = new Map(plugins.map((p) => [p.selfId, p.health]));
  const place = new Map(names.map((n, i) => {
    const a = 2 * Math.PI * i / Math.max(names.length, 1) - Math.PI / 2;
    return [n, { x: 450 + 320 * Math.cos(a), y: 210 + 160 * Math.sin(a) }];
  }));
  const parts = [];
  const defs = draw("defs", {});
  const marker = draw("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" });
  marker.append(draw("path", { d: "M0 0 L8 4 L0 8 z" }));
  defs.append(marker);
  parts.push(defs);
  const beside = new Map();
  for (const e of edges) {
    const from = place.get(e.caller), to = place.get(e.provider || "nobody");
    if (!from || !to) continue;
    const dx = to.x - from.x, dy = to.y - from.y, len = Math.hypot(dx, dy) || 1;
    const gap = Math.min(46, len / 3);
    const bad = e.failing ? "bad" : "";
    parts.push(draw("line", { x1: from.x + dx / len * gap, y1: from.y + dy / len * gap, x2: to.x - dx / len * gap, y2: to.y - dy / len * gap, "marker-end": "url(#arrow)", class: bad }));
    const pair = `${e.caller}\n${e.provider}`;
    const n = beside.get(pair) || 0;
    beside.set(pair, n + 1);
    const label = `${e.type}: ${e.rate.toFixed(1)}/s, ${e.failed} failed, 99% ≤ ${millis(e.slow)}`;
    parts.push(draw("text", { x: from.x + dx * 0.45, y: from.y + dy * 0.45 - 6 + 14 * n, class: `label ${bad}`, "text-anchor": "middle" }, label));
  }
  for (const n of names) {
    const p = place.get(n);
    parts.push(draw("circle", { cx: p.x, cy: p.y, r: 9 }));
    const h = word(health.get(n), "HEALTH_");
    parts.push(draw("text", { x: p.x, y: p.y + (p.y < 210 ? -14 : 26), "text-anchor": "middle" }, h ? `${n} (${h})` : n));
  }
  if (!names.length) parts.push(draw("text", { x: 450, y: 210, "text-anchor": "middle" }, "no calls yet"));
  svg.replaceChildren(...parts);
}

function button(text, action, name) {
  const b = make("button", text);
  b.type = "button";
  b.setAttribute("aria-label", `${text} ${name}`);
  b.addEventListener("click", () => {
    if (confirm(`${text} ${name}?`)) change(action, name);
  });
  return b;
}

async function change(action, name) {
  const r = await fetch("change", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ action, name }) });
  say(r.ok ? `${action} ${name}: done` : `${action} ${name}: ${(await r.text()).trim()}`);
}

function showPlugins(plugins) {
  rows("plugins", plugins.map((p) => {
    const h = p.runtimeId ? word(p.health, "HEALTH_") || "unknown" : p.launch?.state || "";
    const health = make("td", h, h === "healthy" ? "good" : h === "degraded" || h === "unknown" ? "warn" : "bad");
    const write = make("td", undefined, "write");
    if (state.writable && p.runtimeId) write.append(button("Drain", "drain", p.runtimeId), button("Revoke", "revoke", p.selfId));
    return [p.selfId, p.runtimeId || p.launch?.name, p.selfVersion, health, p.healthReason || p.launch?.error || "", p.peer, word(p.proof, "PROOF_"),
      (p.services || []).join(", "), count(p.inFlight), p.lastError || "", write];
  }));
}

function showRevoked(names) {
  const p = byId("revoked");
  p.replaceChildren();
  if (!names.length) return;
  p.append("Revoked: ");
  for (const n of names) {
    p.append(make("code", n), " ");
    if (state.writable) p.append(button("Readmit", "readmit", n));
  }
}

function showLimits(limits) {
  rows("limits", limits.map((l) => {
    const used = count(l.used), max = count(l.max);
    const bar = make("progress");
    bar.max = max || 1;
    bar.value = used;
    bar.setAttribute("aria-label", `${l.name}: ${used} of ${max}`);
    const td = make("td");
    td.append(bar);
    return [l.name, used, max, td, l.of || ""];
  }));
}

// allowing is the line of policy that would have allowed what was refused, empty where none would.
function allowing(e) {
  if (e.kind !== "denied" || !e.right || !e.subject || !e.selfId) return "";
  return `Policy.Plugins[${JSON.stringify(e.selfId)}].${e.right} = append(…, ${JSON.stringify(e.subject)})`;
}

function showEvents(events) {
  state.denials = [...events.filter((e) => e.refusal).reverse(), ...state.denials].slice(0, maxDenials);
  const list = state.denials.map((e) => {
    const li = make("li");
    const n = count(e.count) > 1 ? ` (${e.count} times)` : "";
    li.append(make("strong", e.kind, "bad"), ` ${new Date(e.time).toLocaleTimeString()} ${e.selfId || e.runtimeId || e.peer || "somebody"}: ${e.reason || ""}${n} `);
    if (e.procedure) li.append(make("code", e.procedure), " ");
    const line = allowing(e);
    if (line) li.append(make("br"), "would be allowed by ", make("code", line));
    return li;
  });
  byId("denials").replaceChildren(...(list.length ? list : [make("li", "nothing was refused")]));
}

const say = (text) => { byId("status").textContent = text; };

function show(m) {
  if (m.snapshot) {
    const s = m.snapshot;
    const plugins = s.plugins || [], edges = rated(s.edges || [], s.takenAt);
    byId("host").textContent = `${s.host?.address || ""} version ${s.host?.version || ""}, ${plugins.length} plugins` + (s.omitted ? `, ${s.omitted} entries not shown` : "");
    showEdges(edges);
    showGraph(edges, plugins);
    showPlugins(plugins);
    showRevoked(s.revoked || []);
    showLimits(s.limits || []);
  }
  if (m.events?.length || m.snapshot) showEvents(m.events || []);
}

async function enter() {
  const token = location.hash.slice(1);
  if (token.length < 20) return;
  history.replaceState(null, "", location.pathname); // a link works once, and nobody sees it afterwards
  const r = await fetch("enter", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }) });
  if (!r.ok) say((await r.text()).trim());
}

async function begin() {
  await enter();
  const source = new EventSource("events");
  source.addEventListener("open", () => say("live"));
  source.addEventListener("page", (e) => {
    state.writable = JSON.parse(e.data).writable;
    document.body.classList.toggle("writable", state.writable);
    state.denials = [];
  });
  source.addEventListener("message", (e) => show(JSON.parse(e.data)));
  source.addEventListener("error", () => say(source.readyState === EventSource.CLOSED
    ? "not connected: open the link that connectpluginctl page prints" : "the host cannot be reached; trying again"));
}

begin();
