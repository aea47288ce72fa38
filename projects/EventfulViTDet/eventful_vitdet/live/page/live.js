import { HISTORY, drawChart, formatNumber } from "./charts.js";
import { drawPicture } from "./picture.js";

const find = (id) => document.getElementById(id);
const view = { canvas: find("picture"), frame: null, picture: null, tokens: false, score: 0.3 };
const RETRY_MS = 1500;
let state = null;
let costs = [];
let refused = "";

// Updates from the server.

function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/updates`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = async ({ data }) => {
    const length = new DataView(data).getUint32(0);
    const update = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    if (update.picture) {
      const frame = await createImageBitmap(new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }));
      view.frame?.close();
      view.frame = frame;
      view.picture = update.picture;
    }
    state = update;
    // A server that was started anew counts from the beginning.
    if (update.costs.length && costs.length && update.costs[0][0] <= costs.at(-1)[0]) costs = [];
    costs = [...costs, ...update.costs].slice(-HISTORY);
    requestAnimationFrame(show);
    socket.send("next"); // ready for another one
  };
  socket.onclose = ({ reason }) => {
    state = null;
    setStatus("connecting", reason || "connecting");
    setTimeout(connect, RETRY_MS);
  };
}

// What the page shows.

function show() {
  if (!state) return;
  if (view.picture) drawPicture(view);
  showStatus();
  showControls();
  showCosts();
  showDetections();
}

function showStatus() {
  const { settings, notice, lost, error, viewers } = state;
  if (error) setStatus("error", "stopped");
  else if (lost) setStatus("lost", "signal lost");
  else if (settings.paused) setStatus("paused", "paused");
  else setStatus("playing", "playing");
  setText("viewers", viewers === 1 ? "1 viewer" : `${viewers} viewers`);
  setText("source", view.picture?.name.split("/").at(-1) ?? "");
  document.title = view.picture ? `${find("source").textContent} – live detection` : "Live detection";
  const message = refused || error || notice || (view.picture ? "" : "waiting for the first frame");
  find("message").hidden = !message;
  find("message").classList.toggle("bad", Boolean(refused || error));
  setText("message", message);
}

function showControls() {
  const { settings, limits } = state;
  document.body.classList.toggle("paused", settings.paused);
  document.body.classList.toggle("unseekable", !limits.seekable);
  press("eventful", settings.eventful);
  press("dense", !settings.eventful);
  press("repeat", settings.repeat);
  find("automatic-row").hidden = !limits.has_automatic;
  find("automatic").checked = settings.automatic;
  const ready = limits.tokens !== null && settings.eventful;
  find("budget").disabled = !ready;
  const shown = view.picture?.budget ?? "";
  const running = /^top-r (\d+)$/.exec(shown);
  const budget = settings.automatic && running ? Number(running[1]) : settings.budget;
  if (!dragging.has("budget") && limits.tokens) {
    find("budget").min = toSlider(limits.smallest_budget, limits.tokens);
    find("budget").max = toSlider(limits.largest_budget, limits.tokens);
    setRange("budget", toSlider(budget, limits.tokens));
  }
  if (!dragging.has("budget")) {
    if (settings.automatic && !running && shown && shown !== "dense") showPolicy(shown);
    else showBudget(budget);
  }
  if (view.picture) showPosition();
}

function showBudget(budget) {
  const tokens = state.limits.tokens;
  setText("budget-value", String(budget));
  setText("budget-of", tokens ? `of ${tokens} (${Math.round((100 * budget) / tokens)} %)` : "");
}

/** Of a policy without a number of tokens. */
function showPolicy(name) {
  setText("budget-value", name);
  setText("budget-of", "");
}

function showPosition() {
  const { index, seconds } = view.picture;
  const last = state.limits.num_frames ? state.limits.num_frames - 1 : null;
  if (!dragging.has("seek")) {
    find("seek").max = last ?? Math.max(index, Number(find("seek").max));
    setRange("seek", index);
  }
  setText("time", `${formatTime(seconds)} · ${last === null ? `frame ${index}` : `${index} / ${last}`}`);
}

function showCosts() {
  const newest = costs.at(-1);
  if (!newest) return;
  const [, gflops, , milliseconds, full] = newest;
  setText("gflops", formatNumber(gflops));
  setText("milliseconds", milliseconds >= 10 ? milliseconds.toFixed(0) : milliseconds.toFixed(1));
  setText("rate", state.settings.paused ? "–" : state.frames_per_second.toFixed(1));
  const reference = costs.findLast((cost) => cost[4]);
  setText("saving", reference && !full ? `${(reference[1] / gflops).toFixed(1)}× fewer than in full` : "");
  drawChart(find("gflops-chart"), costs.map((cost) => [cost[1], cost[4]]));
  drawChart(find("milliseconds-chart"), costs.map((cost) => [cost[3], cost[4]]));
}

function showDetections() {
  const shown = (view.picture?.detections ?? []).filter((detection) => detection.score >= view.score);
  setText("count", shown.length ? String(shown.length) : "");
  const rows = shown.map(({ class: name, score, color }) => {
    const row = document.createElement("li");
    const parts = ["i", "span", "div", "b"].map((tag) => document.createElement(tag));
    parts[0].style.setProperty("--c", `rgb(${color.join(" ")})`);
    parts[1].textContent = name;
    parts[2].style.setProperty("--w", `${100 * score}%`);
    parts[3].textContent = `${Math.round(100 * score)} %`;
    row.append(...parts);
    return row;
  });
  if (!rows.length) {
    const none = document.createElement("li");
    none.className = "none";
    none.textContent = "nothing in this frame";
    rows.push(none);
  }
  find("detections").replaceChildren(...rows);
}

function setStatus(kind, text) {
  find("status").dataset.state = kind;
  setText("status", text);
}

function setText(id, text) {
  if (find(id).textContent !== text) find(id).textContent = text;
}

function setRange(id, value) {
  const range = find(id);
  range.value = value;
  range.style.setProperty("--at", `${(100 * (range.value - range.min)) / (range.max - range.min || 1)}%`);
}

function press(id, pressed) {
  find(id).setAttribute("aria-pressed", String(pressed));
}

function formatTime(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

// Small budgets matter most: the slider's scale is quadratic.
const toSlider = (budget, tokens) => Math.round(1000 * Math.sqrt(budget / tokens));
const fromSlider = (value, tokens) => Math.round(tokens * (value / 1000) ** 2);

// What viewers ask for.

const dragging = new Set();

async function ask(path, body) {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    refused = answer.ok ? "" : ((await answer.json()).error ?? `refused (${answer.status})`);
  } catch {
    refused = "the server does not answer";
  }
  show();
}

const change = (settings) => ask("/api/settings", settings);
const seek = (frame) => ask("/api/seek", { frame });

/** Sends a slider's value as it is dragged, one request at a time, the newest last. */
function onDrag(id, send) {
  let pending = null;
  let busy = false;
  const flush = async () => {
    if (busy) return;
    busy = true;
    while (pending !== null) {
      const value = pending;
      pending = null;
      await send(value);
    }
    busy = false;
    if (!find(id).matches(":active")) dragging.delete(id);
  };
  find(id).addEventListener("input", (event) => {
    dragging.add(id);
    pending = Number(event.target.value);
    setRange(id, pending);
    flush();
  });
  find(id).addEventListener("change", () => busy || dragging.delete(id));
}

onDrag("budget", (value) => {
  const { tokens, smallest_budget: smallest, largest_budget: largest } = state.limits;
  const budget = Math.max(smallest, Math.min(fromSlider(value, tokens), largest)); // it is whole steps that a slider makes
  showBudget(budget);
  return change({ budget });
});
onDrag("seek", seek);
find("eventful").addEventListener("click", () => change({ eventful: true }));
find("dense").addEventListener("click", () => change({ eventful: false }));
find("automatic").addEventListener("change", (event) => change({ automatic: event.target.checked }));
find("repeat").addEventListener("click", () => change({ repeat: !state.settings.repeat }));
find("play").addEventListener("click", () => change({ paused: !state.settings.paused }));
find("step").addEventListener("click", step);
find("tokens").addEventListener("change", (event) => {
  view.tokens = event.target.checked;
  show();
});
find("score").addEventListener("input", (event) => {
  view.score = event.target.value / 100;
  setRange("score", event.target.value);
  setText("score-value", event.target.value);
  show();
});

async function step() {
  if (!state || !view.picture) return;
  if (!state.settings.paused) await change({ paused: true });
  const last = state.limits.num_frames === null ? Infinity : state.limits.num_frames - 1;
  if (view.picture.index < last) await seek(view.picture.index + 1);
}

addEventListener("keydown", (event) => {
  if (!state || event.target.matches("input, button") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " ") change({ paused: !state.settings.paused });
  else if (event.key === "ArrowRight" && state.limits.seekable) step();
  else return;
  event.preventDefault();
});
addEventListener("resize", () => requestAnimationFrame(show));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
setRange("score", 30);
connect();
