import { drawChart, formatNumber } from "./charts.js";
import { HISTORY, later, median, reference } from "./costs.js";
import { listActions, makeRow } from "./list.js";
import { arrange, drawPicture } from "./picture.js";

const find = (id) => document.getElementById(id);
const view = { canvas: find("picture"), frame: null, picture: null, tokens: true, score: 0.3, panels: [], grid: [1, 1] };
const SHOWN_FRAMES = 15; // whose median the figures are
const WIDE = 2.1; // of a stage, width over height
const SAME = 1.05; // ratios of times below this are none
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
    // A server that was restarted counts from the beginning.
    if (update.costs.length && costs.length && update.costs[0].serial <= costs.at(-1).serial) costs = [];
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
  if (view.picture) showPicture();
  showStatus();
  showControls();
  showCosts();
  if (view.picture?.actions) listActions(find("detections"), view.picture.actions);
  else showDetections();
}

function showPicture() {
  const { picture } = view;
  view.panels = [{ detections: picture.detections, tokens: view.tokens ? picture.tokens : null, caption: "" }];
  if (picture.dense_detections) {
    const { gflops, ms, dense_gflops: denseGflops, dense_ms: denseMs } = costs.at(-1);
    view.panels[0].caption = describe("eventful", gflops, ms);
    view.panels.push({ detections: picture.dense_detections, caption: describe("dense", denseGflops, denseMs) });
  }
  // The stage takes the shape of what it shows; where that is very wide, everything else goes below it.
  const space = { width: innerWidth - 40, height: innerHeight - 212 };
  view.grid = arrange(picture, view.panels.length, space);
  const aspect = (view.grid[0] * picture.width) / (view.grid[1] * picture.height);
  document.documentElement.style.setProperty("--aspect", aspect.toFixed(4));
  document.body.classList.toggle("wide", aspect > WIDE);
  drawPicture(view);
  find("key").classList.toggle("off", !view.panels[0].tokens);
}

const describe = (name, gflops, ms) => `${name}: ${formatNumber(gflops)} GFlops, ${formatNumber(ms)} ms`;

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
  find("beside").checked = settings.beside;
  find("beside").disabled = find("target").disabled = !settings.eventful;
  if (document.activeElement !== find("target") && !asking.has("target")) find("target").value = settings.target_ms ?? "";
  const ready = limits.tokens !== null && settings.eventful;
  find("budget").disabled = !ready;
  const shown = view.picture?.budget ?? "";
  const running = /^top-r (\d+)$/.exec(shown);
  const chosen = settings.automatic || settings.target_ms !== null; // by a controller
  const budget = chosen && running ? Number(running[1]) : settings.budget;
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
  setText("budget-of", tokens ? `of ${tokens} tokens (${Math.round((100 * budget) / tokens)} %)` : "");
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
  // Of the frames in between, not of one that began a sequence, unless there are no others.
  const kind = newest.kind === "flush" && costs.at(-2)?.kind === "eventful" ? "eventful" : newest.kind;
  const alike = costs.slice(-SHOWN_FRAMES).filter((cost) => cost.kind === kind);
  const milliseconds = median(alike.map((cost) => cost.ms));
  setText("gflops", formatNumber(median(alike.map((cost) => cost.gflops))));
  setText("milliseconds", milliseconds >= 10 ? milliseconds.toFixed(0) : milliseconds.toFixed(1));
  setText("rate", state.settings.paused ? "–" : state.frames_per_second.toFixed(1));
  showCost("gflops", "gflops", (ratio) => `${ratio.toFixed(1)}× less`);
  showCost("milliseconds", "ms", (ratio) => (ratio < SAME ? "no faster" : `${ratio.toFixed(1)}× faster`));
}

/** A chart, and above it what is saved: the median of later eventful frames against that of full ones. */
function showCost(id, key, word) {
  const { value, name } = reference(costs, key);
  const usual = state.settings.eventful ? later(costs, key) : null;
  setText(`${id}-saving`, value !== null && usual ? `${word(value / usual)} than ${name}` : "");
  find(`${id}-saving`).classList.toggle("none", value !== null && usual !== null && value / usual < SAME);
  setText("reference", `${name} (median)`);
  drawChart(find(`${id}-chart`), costs.map((cost) => [cost[key], cost.kind !== "eventful"]), value);
}

function showDetections() {
  const shown = (view.picture?.detections ?? []).filter((detection) => detection.score >= view.score);
  setText("count", shown.length ? String(shown.length) : "");
  const rows = shown.map(makeRow);
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

const dragging = new Set(); // sliders
const asking = new Set(); // fields whose value is on its way to the server

async function ask(path, body, apply = () => {}) {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const told = await answer.json();
    refused = answer.ok ? "" : (told.error ?? `refused (${answer.status})`);
    if (answer.ok && state) apply(told);
  } catch {
    refused = "the server does not answer";
  }
  show();
}

const change = (settings) => ask("/api/settings", settings, (now) => (state.settings = now));
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
find("target").addEventListener("change", async (event) => {
  const value = event.target.valueAsNumber;
  asking.add("target");
  event.target.blur();
  await change({ target_ms: Number.isNaN(value) ? null : value });
  asking.delete("target");
  show();
});
find("beside").addEventListener("change", (event) => change({ beside: event.target.checked }));
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
