import { drawChart, formatNumber } from "./charts.js";
import { joinCosts, later, median, reference, usual } from "./costs.js";
import { listActions, makeRow } from "./list.js";
import { drawPicture } from "./picture.js";
import { fitPicture, place, spaceOfWindow } from "./stage.js";
import { Tiles } from "./tiles.js";
import { openUpdates } from "./updates.js";

const find = (id) => document.getElementById(id);
const view = { canvas: find("picture"), frame: null, picture: null, tokens: true, score: 0.3, panels: [], grid: [1, 1] };
const tiles = new Tiles(find("tiles"), enlarge);
const SAME = 1.05; // ratios of times below this are none
let state = null; // of what the page shows: one camera, or all
let costs = [];
let refused = "";
let several = false; // cameras, and tiles for them
let enlarged = null; // number of the camera that is shown by itself, of several

// Updates from the server.

const look = openUpdates(
  (update) => {
    if (update.tiles) receiveTiles(update);
    else receiveCamera(update);
    requestAnimationFrame(show);
  },
  (reason) => {
    state = null;
    several = false;
    setStatus("connecting", reason || "connecting");
  },
);

function receiveTiles(update) {
  // What was sent before one was enlarged: its picture may be in use.
  if (enlarged !== null) for (const tile of update.tiles) dropPicture(tile);
  tiles.update(update.tiles);
  several = true;
  readAddress();
  if (enlarged === null) state = update;
  else look({ camera: enlarged });
}

function receiveCamera(update) {
  if (several && update.camera !== enlarged) {
    dropPicture(update); // sent before another view was asked for
    return;
  }
  if (update.picture) showNext(update.picture);
  state = update;
  costs = joinCosts(costs, update.costs);
}

function dropPicture(update) {
  update.picture?.frame.close();
  delete update.picture;
}

/** Let a picture, or null, be that of the camera that is shown by itself; frames are freed at once, but for a tile's. */
function showNext(picture) {
  if (!tiles.cameras.some((camera) => camera.picture?.frame === view.frame)) view.frame?.close();
  view.picture = picture;
  view.frame = picture?.frame ?? null;
}

// Of several cameras, the address says which one is enlarged: the browser's own ways lead back and forth.

function enlarge(number) {
  location.hash = number === null ? "" : `camera-${number + 1}`;
}

/** Show what the address says. */
function readAddress() {
  const number = Number(/^#camera-(\d+)$/.exec(location.hash)?.[1]) - 1;
  const wanted = several && tiles.cameras[number] ? number : null;
  if (wanted === enlarged) return;
  const before = enlarged;
  enlarged = wanted;
  if (enlarged !== null) {
    const { picture, costs: known, ...camera } = tiles.cameras[enlarged]; // until the server has sent more of it
    showNext(picture);
    costs = known;
    state = state && { ...state, ...camera };
    look({ camera: enlarged });
  }
  const focused = document.activeElement;
  show();
  if (enlarged !== null && find("tiles").contains(focused)) find("back").focus();
  if (enlarged === null && (focused === find("back") || focused === document.body)) tiles.cameras[before]?.part("button").focus();
}

// What the page shows.

function show() {
  if (!state) return;
  const inTiles = several && enlarged === null;
  document.body.classList.toggle("grid", inTiles);
  find("tiles").hidden = find("totals").hidden = !inTiles;
  find("back").hidden = !several || inTiles;
  if (inTiles) showTiles();
  else showCamera();
  showStatus(inTiles);
  showControls(inTiles);
}

function showTiles() {
  look({ tiles: tiles.arrange(place(spaceOfWindow(), (space) => tiles.fit(space))) });
  tiles.show(view);
  find("key").classList.toggle("off", !view.tokens);
  const { gflops, full } = tiles.totals();
  const count = tiles.cameras.length;
  const playing = tiles.cameras.filter(({ lost, error }) => !lost && !error).length;
  setText("playing", playing < count ? `${playing} of ${count} play` : String(count));
  setText("total-rate", state.settings.paused ? "–" : state.frames_per_second.toFixed(1));
  setText("total-gflops", full ? formatNumber(gflops) : "–");
  setText("total-saving", full ? formatNumber(full) : "–");
  setText("total-words", full && gflops ? `${(full / gflops).toFixed(1)}× less than in full` : "");
}

function showCamera() {
  if (view.picture) showPicture();
  else showNothing();
  showCosts();
  if (view.picture?.actions) listActions(find("detections"), view.picture.actions);
  else showDetections();
}

/** No picture, and not the one that was there before. */
function showNothing() {
  shapeStage({ width: 640, height: 400 }, 1);
  view.canvas.width = view.canvas.width;
}

/** Let the stage take the shape of what it shows: a picture, or several of its shape. */
function shapeStage(picture, panels) {
  const { grid, aspect, tall } = place(spaceOfWindow(), (space) => fitPicture(picture, panels, space));
  view.grid = grid;
  const { style } = document.documentElement;
  style.setProperty("--aspect", aspect.toFixed(4));
  style.setProperty("--tall", `${Math.ceil(tall)}px`);
}

function showPicture() {
  const { picture } = view;
  view.panels = [{ detections: picture.detections, tokens: view.tokens ? picture.tokens : null, caption: "" }];
  if (picture.dense_detections) {
    const { gflops, ms, dense_gflops: denseGflops, dense_ms: denseMs } = costs.at(-1);
    view.panels[0].caption = describe("eventful", gflops, ms);
    view.panels.push({ detections: picture.dense_detections, caption: describe("dense", denseGflops, denseMs) });
  }
  shapeStage(picture, view.panels.length);
  drawPicture(view);
  find("key").classList.toggle("off", !view.panels[0].tokens);
}

const describe = (name, gflops, ms) => `${name}: ${formatNumber(gflops)} GFlops, ${formatNumber(ms)} ms`;

function showStatus(inTiles) {
  const { settings, notice, lost, error, viewers } = state;
  if (error) setStatus("error", "stopped");
  else if (lost) setStatus("lost", "no signal");
  else if (settings.paused) setStatus("paused", "paused");
  else setStatus("playing", "playing");
  setText("viewers", viewers === 1 ? "1 viewer" : `${viewers} viewers`);
  setText("source", inTiles ? `${tiles.cameras.length} cameras` : nameOfCamera());
  const named = find("source").textContent;
  document.title = named ? `${named} – live detection` : "Live detection";
  const message = refused || error || notice || (view.picture || inTiles ? "" : "waiting for the first frame");
  find("message").hidden = !message;
  find("message").classList.toggle("bad", Boolean(refused || error));
  setText("message", message);
}

const nameOfCamera = () => (several ? tiles.cameras[enlarged].name : (view.picture?.name.split("/").at(-1) ?? ""));

function showControls(inTiles) {
  const { settings, limits } = state;
  document.body.classList.toggle("paused", settings.paused);
  document.body.classList.toggle("unseekable", !limits.seekable);
  press("eventful", settings.eventful);
  press("dense", !settings.eventful);
  press("repeat", settings.repeat);
  find("automatic-row").hidden = !limits.has_automatic;
  find("automatic").checked = settings.automatic;
  find("beside").checked = settings.beside;
  find("beside-row").hidden = inTiles && !settings.beside; // it is seen in the view of one camera
  if (several) setText("target-of", "ms for all");
  find("beside").disabled = find("target").disabled = !settings.eventful;
  if (document.activeElement !== find("target") && !asking.has("target")) find("target").value = settings.target_ms ?? "";
  const ready = limits.tokens !== null && settings.eventful;
  find("budget").disabled = !ready;
  const { picture } = inTiles ? (tiles.cameras.find((camera) => camera.picture) ?? {}) : view;
  const shown = picture?.budget ?? "";
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
  if (view.picture && !inTiles) showPosition();
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
  if (!costs.length) {
    for (const id of ["gflops", "milliseconds", "rate"]) setText(id, "–");
    return;
  }
  const alike = usual(costs);
  const milliseconds = median(alike.map((cost) => cost.ms));
  setText("gflops", formatNumber(median(alike.map((cost) => cost.gflops))));
  setText("milliseconds", milliseconds >= 10 ? milliseconds.toFixed(0) : milliseconds.toFixed(1));
  setText("rate", state.settings.paused ? "–" : state.frames_per_second.toFixed(1));
  showCost("gflops", "gflops", (ratio) => `${ratio.toFixed(1)}× less`);
  showCost("milliseconds", "ms", (ratio) => (ratio < SAME ? "no faster" : `${ratio.toFixed(1)}× faster`));
}

/** A chart, and above it what is saved: the median of later eventful frames against that of full ones. */
function showCost(id, key, word) {
  const { value, name, count } = reference(costs, key);
  const usual = state.settings.eventful ? later(costs, key) : null;
  setText(`${id}-saving`, value !== null && usual ? `${word(value / usual)} than ${name}` : "");
  find(`${id}-saving`).classList.toggle("none", value !== null && usual !== null && value / usual < SAME);
  setText("reference", count ? `${name} (median of ${count})` : name);
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
const seek = (frame) => ask("/api/seek", several ? { frame, camera: enlarged } : { frame });

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
  if (!state || !view.picture || (several && enlarged === null)) return;
  if (!state.settings.paused) await change({ paused: true });
  const last = state.limits.num_frames === null ? Infinity : state.limits.num_frames - 1;
  if (view.picture.index < last) await seek(view.picture.index + 1);
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && enlarged !== null) enlarge(null);
  if (!state || event.target.matches("input, button") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " ") change({ paused: !state.settings.paused });
  else if (event.key === "ArrowRight" && state.limits.seekable) step();
  else return;
  event.preventDefault();
});
find("back").addEventListener("click", () => enlarge(null));
addEventListener("hashchange", readAddress);
addEventListener("resize", () => requestAnimationFrame(show));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
setRange("score", 30);
