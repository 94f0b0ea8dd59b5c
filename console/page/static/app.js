"use strict";
// Everything that a host sends is text, wherever it came from: it gets into the page with textContent
// and setAttribute only. The policy of the page lets no string become markup or code.
// What is still there stays the same element, so that nobody loses the place, the focus or a selection.

const byId = (id) => document.getElementById(id);
const state = { writable: false, before: new Map(), at: 0 };
const maxDenials = 50;
const quiet = 3000; // ms after which nothing happens: a host sends a snapshot each second while anything does

function make(name, text, className) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  return e;
}

// fill makes a table show rows: a key each, and cells of { text, className, full, buttons }.
function fill(id, list) {
  const body = byId(id).tBodies[0];
  const gone = new Map([...body.rows].map((tr) => [tr.dataset.key, tr]));
  const kept = new Map();
  for (const { key } of list) {
    if (!gone.has(key)) continue;
    kept.set(key, gone.get(key));
    gone.delete(key);
  }
  for (const tr of gone.values()) {
    if (tr.contains(document.activeElement)) body.closest("[tabindex]").focus();
    tr.remove();
  }
  let at = body.firstElementChild;
  for (const { key, cells } of list) {
    let tr = kept.get(key);
    if (!tr) {
      tr = make("tr");
      tr.dataset.key = key;
      cells.forEach((_, i) => tr.append(make(i === 0 ? "th" : "td")));
      tr.cells[0].scope = "row";
    }
    if (tr === at) at = at.nextElementSibling;
    else body.insertBefore(tr, at);
    cells.forEach((c, i) => fillCell(tr.cells[i], c));
  }
}

function fillCell(td, c) {
  if (td.className !== (c.className || "")) td.className = c.className || "";
  if (c.buttons) {
    if (td.childElementCount !== c.buttons.length) td.replaceChildren(...c.buttons.map((b) => button(...b)));
  } else if (c.full) {
    const bar = td.firstElementChild || td.appendChild(make("progress"));
    bar.max = c.full.of || 1;
    bar.value = c.full.used;
    bar.setAttribute("aria-label", c.full.label);
  } else if (td.textContent !== c.text) td.textContent = c.text;
}

const text = (s, className) => ({ text: String(s ?? ""), className });
const number = (s, className) => text(s, `number ${className || ""}`.trim());
const word = (s, prefix) => (s || "").replace(prefix, "").toLowerCase().replaceAll("_and_", " + ").replaceAll("_", " ").replace("unspecified", "");
const millis = (d) => d === undefined ? "" : `${Math.round(parseFloat(d) * 1000)} ms`;
const count = (n) => Number(n || 0);
const share = (n, of) => n ? `${n} (${(100 * n / of).toFixed(1)}%)` : "0";

// span says how long it is between two moments, short.
function span(from, to) {
  const s = (Date.parse(to) - Date.parse(from)) / 1000;
  if (Number.isNaN(s)) return "";
  if (s < 0) return "over";
  if (s >= 172800) return `${Math.floor(s / 86400)} d`;
  if (s >= 7200) return `${Math.floor(s / 3600)} h`;
  if (s >= 60) return `${Math.floor(s / 60)} min`;
  return `${Math.floor(s)} s`;
}

// rated adds to each edge how many calls a second it had since the snapshot before.
function rated(edges, taken) {
  const at = Date.parse(taken) / 1000;
  const now = new Map();
  const out = edges.map((e) => {
    const key = JSON.stringify([e.caller, e.provider, e.type]);
    const calls = count(e.calls), broken = count(e.providerFaults), wrong = count(e.callerFaults);
    const had = state.before.get(key);
    const was = had && had.calls <= calls ? had // fewer than before has a host that began anew
      : { calls: state.at ? 0 : calls, broken: state.at ? 0 : broken };
    now.set(key, { calls, broken });
    return { ...e, key, count: calls, broken, wrong, rate: (calls - was.calls) / Math.max(at - state.at, 0.2), failing: broken > was.broken };
  });
  state.before = now;
  state.at = at;
  return out;
}

function showEdges(edges) {
  fill("edges", edges.map((e) => ({ key: e.key, cells: [
    text(e.caller), text(e.provider || "nobody"), text(e.type), number(e.rate.toFixed(1)), number(e.count),
    number(share(e.broken, e.count), e.broken ? "bad" : ""), number(share(e.wrong, e.count), e.wrong ? "warn" : ""),
    number(millis(e.median)), number(millis(e.slow)), text(e.lastCode),
  ] })));
}

// What may turn out either way, and what somebody wanted.
const uncertain = ["degraded", "unknown", "starting", "stopping", "stopped"];

// healthOf says how an instance is, and in which colour.
function healthOf(p) {
  const unknown = p.services?.length ? "unknown" : ""; // who provides nothing is not asked
  const h = p.runtimeId ? word(p.health, "HEALTH_") || unknown : p.launch?.state || "";
  if (p.drained) return { text: h ? `${h}, drained` : "drained", className: h === "unhealthy" ? "bad" : "warn" };
  return { text: h, className: h === "healthy" ? "good" : uncertain.includes(h) ? "warn" : h ? "bad" : "" };
}

function showGraph(edges, plugins) {
  const health = new Map();
  const rank = ["good", "warn", "bad", ""];
  for (const p of plugins) { // of several instances, the best
    const h = healthOf(p), had = health.get(p.selfId);
    if (!had || rank.indexOf(h.className) < rank.indexOf(had.className)) health.set(p.selfId, h);
  }
  drawGraph(byId("graph"), edges.map((e) => ({
    from: e.caller, to: e.provider || "nobody", bad: e.failing,
    text: `${shorten(e.type)}: ${e.rate.toFixed(1)}/s, ${e.broken} failed${e.wrong ? `, ${e.wrong} wrong` : ""}, 99% ≤ ${millis(e.slow)}`,
  })), health);
}

function button(label, action, name) {
  const b = make("button", label);
  b.type = "button";
  b.setAttribute("aria-label", `${label} ${name}`);
  b.addEventListener("click", () => {
    if (confirm(`${label} ${name}?`)) change(action, name);
  });
  return b;
}

async function change(action, name) {
  const r = await post("change", { action, name });
  say(r.ok ? `${action} ${name}: done` : `${action} ${name}: ${(await r.text()).trim()}`);
}

// rightsOf says what policy lets a plugin do.
function rightsOf(p) {
  return [["provide", p.mayProvide], ["call", p.mayRequire], ["use", p.mayUse], ["ask the host's", p.mayCall]]
    .filter(([, names]) => names?.length).map(([what, names]) => `${what} ${names.join(", ")}`).join("; ");
}

function showPlugins(plugins, taken) {
  fill("plugins", plugins.map((p) => {
    const h = healthOf(p), why = (p.healthReason || p.launch?.error || "").replace(/^drained: /, p.drained ? "" : "$&");
    const ends = p.certificateExpiresAt ? `, certificate ends in ${span(taken, p.certificateExpiresAt)}` : "";
    return { key: p.runtimeId || `launch ${p.launch?.name}`, cells: [
      text(p.selfVersion ? `${p.selfId} ${p.selfVersion}` : p.selfId), text(p.runtimeId || p.launch?.name, "long"),
      text(why ? `${h.text}: ${why}` : h.text, `${h.className} ${why ? "long" : ""}`.trim()), text(span(p.enrolledAt, taken)), text(p.peer),
      text(word(p.proof, "PROOF_") + ends), text((p.services || []).join(", ")), text(rightsOf(p), "long"), number(count(p.inFlight)),
      text(p.lastError ? `${p.lastError} (${span(p.lastErrorAt, taken)} ago)` : "", p.lastError ? "long" : ""),
      { className: "write", buttons: state.writable && p.runtimeId ? [["Drain", "drain", p.runtimeId], ["Revoke", "revoke", p.selfId]] : [] },
    ] };
  }));
}

function showRevoked(names) {
  const p = byId("revoked"), key = JSON.stringify([names, state.writable]);
  if (p.dataset.key === key) return;
  p.dataset.key = key;
  p.replaceChildren(...(names.length ? ["Revoked: "] : []));
  for (const n of names) {
    p.append(make("code", n), " ");
    if (state.writable) p.append(button("Readmit", "readmit", n));
  }
}

function showLimits(limits) {
  fill("limits", limits.map((l) => {
    const used = count(l.used), of = count(l.max);
    return { key: l.name, cells: [
      text(l.name), number(used), number(of), { full: { used, of, label: `${l.name}: ${used} of ${of}` } }, text(l.of),
    ] };
  }));
}

// allowing is the line of policy that would have allowed what was refused, empty where none would.
function allowing(e) {
  if (e.kind !== "denied" || !e.right || !e.subject || !e.selfId) return "";
  return `Policy.Plugins[${JSON.stringify(e.selfId)}].${e.right} = append(…, ${JSON.stringify(e.subject)})`;
}

function refusal(e) {
  const li = make("li");
  const n = count(e.count) > 1 ? ` (${e.count} times)` : "";
  li.append(make("strong", e.kind, "bad"), ` ${new Date(e.time).toLocaleTimeString()} ${e.selfId || e.runtimeId || e.peer || "somebody"}: ${e.reason || ""}${n} `);
  if (e.procedure) li.append(make("code", e.procedure), " ");
  const line = allowing(e);
  if (line) li.append(make("br"), "would be allowed by ", make("code", line));
  return li;
}

function showEvents(events) {
  const list = byId("denials");
  list.prepend(...events.filter((e) => e.refusal).slice(-maxDenials).reverse().map(refusal));
  while (list.childElementCount > maxDenials) list.lastElementChild.remove();
  byId("none").hidden = list.childElementCount > 0;
}

function say(what) {
  if (byId("status").textContent !== what) byId("status").textContent = what;
}

function showCalls(edges, plugins) {
  showEdges(edges);
  showGraph(edges, plugins);
}

function show(m) {
  if (m.snapshot) {
    const s = m.snapshot;
    const plugins = s.plugins || [], edges = rated(s.edges || [], s.takenAt);
    byId("host").textContent = `${s.host?.address || ""} version ${s.host?.version || ""}, ${plugins.length} plugins` + (s.omitted ? `, ${s.omitted} entries not shown` : "");
    showCalls(edges, plugins);
    clearTimeout(state.timer);
    state.timer = setTimeout(() => showCalls(edges.map((e) => ({ ...e, rate: 0, failing: false })), plugins), quiet);
    showPlugins(plugins, s.takenAt);
    showRevoked(s.revoked || []);
    showLimits(s.limits || []);
  }
  showEvents(m.events || []);
}

// The key belongs to this origin: what is stored here no other port gets, as it does the cookie. It is read
// anew each time, because another tab may have entered since.
const storedAs = "connectplugin page key";
const storage = (f) => { try { return f(localStorage); } catch { return null; } }; // a browser may forbid it
const key = () => storage((s) => s.getItem(storedAs)) || state.key || "";

function keep(key) {
  state.key = key;
  storage((s) => s.setItem(storedAs, key));
}

function post(path, what) {
  const headers = { "Content-Type": "application/json", "Connectplugin-Page-Key": key() };
  return fetch(path, { method: "POST", headers, body: JSON.stringify(what) });
}

// enter gets the key, with the token of a link or with a certificate, and returns why not.
async function enter(token) {
  const r = await post("enter", { token });
  if (!r.ok) return (await r.text()).trim();
  keep((await r.json()).key);
  return "";
}

// begun is called with the first line of a stream.
function begun(page) {
  state.writable = page.writable;
  document.body.classList.toggle("writable", state.writable);
  byId("denials").replaceChildren(); // the host tells all of them again
  say("live");
}

// follow shows what the host sends until that ends. It returns whether that began with the key that there is.
async function follow() {
  const r = await fetch("events", { headers: { "Connectplugin-Page-Key": key() }, cache: "no-store" });
  if (r.status === 401) return false;
  if (!r.ok) throw new Error((await r.text()).trim());
  const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return true;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const m of lines.map((l) => JSON.parse(l))) m.page ? begun(m.page) : show(m);
  }
}

// followed follows with the key that there is, or else with one for the certificate that the browser shows.
const followed = async () => await follow() || await enter("") === "" && await follow();

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const again = 2000; // ms until another attempt

async function begin() {
  let why = "";
  const token = location.hash.slice(1);
  if (token.length >= shortest) {
    history.replaceState(null, "", location.pathname); // a link works once, and nobody sees it afterwards
    why = await enter(token).catch((e) => e.message);
  }
  for (; ; await pause(again)) {
    try {
      if (!await followed()) break;
      say("the connection ended; trying again");
    } catch (e) {
      say(`not connected (${e.message}); trying again`);
    }
  }
  say(`not connected: ${why && `${why}; `}open the link that connectpluginctl page prints`);
  addEventListener("storage", () => location.reload()); // another tab has entered
}

const shortest = 20; // of the token of a link
// A link that is opened in this very tab changes nothing but what is behind the #.
addEventListener("hashchange", () => { if (location.hash.length > shortest) location.reload(); });
begin();
