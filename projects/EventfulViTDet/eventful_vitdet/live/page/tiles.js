// Several cameras side by side: a tile with the picture of each, and what it costs.

import { formatNumber } from "./charts.js";
import { joinCosts, median, usual } from "./costs.js";
import { drawPicture } from "./picture.js";

const GAP = 12;
const SMALLEST = 164; // pixels that a tile is wide, at least
const NARROW = 250; // below that, its text takes a line more
const BAR = 71; // pixels that the bar below them is high, with the gap
const LEAST_ASPECT = 0.5; // of a tile's picture: in one that is narrower, there is room at the sides
const WIDEST_PICTURE = 1280; // that the server sends

/** In how many columns tiles of a shape are largest in a space, and how wide they then are. */
export function layOut(count, aspect, space) {
  const most = Math.max(1, Math.min(count, Math.floor((space.width + GAP) / (SMALLEST + GAP))));
  const layouts = [...Array(most).keys()].map((i) => {
    const across = (space.width - GAP * i) / (i + 1);
    const rows = Math.ceil(count / (i + 1));
    const above = (caption) => Math.min(across, ((space.height - GAP * (rows - 1)) / rows - caption) * aspect);
    const width = above(captionOf(across));
    return { columns: i + 1, width: width < NARROW ? Math.min(width, above(captionOf(width))) : width };
  });
  const best = layouts.reduce((one, other) => (other.width > one.width ? other : one));
  // Where they do not all fit, one has to scroll.
  return best.width >= SMALLEST ? best : { columns: most, width: (space.width - GAP * (most - 1)) / most };
}

/** Pixels below the picture of a tile. */
const captionOf = (width) => (width < NARROW ? 80 : 62);

export class Tiles {
  /**
   * @param list the element that holds the tiles
   * @param enlarge called with the number of the tile that somebody chooses
   */
  constructor(list, enlarge) {
    this.list = list;
    this.enlarge = enlarge;
    this.cameras = [];
  }

  /** Take over what the server tells of all cameras. */
  update(told) {
    if (told.map(({ name }) => name).join("\n") !== this.cameras.map(({ name }) => name).join("\n")) this.fill(told);
    told.forEach((news, i) => {
      const camera = this.cameras[i];
      const costs = joinCosts(camera.costs, news.costs);
      if (news.picture) camera.picture?.frame.close();
      Object.assign(camera, news, { costs, picture: news.picture ?? camera.picture });
    });
  }

  fill(told) {
    this.cameras = told.map(({ name }, i) => {
      const tile = document.createElement("li");
      tile.innerHTML = `<button type="button"><canvas width="320" height="200"></canvas></button>
        <p class="part"><i></i></p>
        <p class="name"></p><p class="rate"></p><p class="cost"></p><p class="tokens"></p>
<p class="said" role="status"></p>`;
      const part = (selector) => tile.querySelector(selector);
      part(".name").textContent = part(".name").title = name;
      part("button").setAttribute("aria-label", `enlarge ${name}`);
      part("button").addEventListener("click", () => this.enlarge(i));
      return { name, tile, part, costs: [], picture: null };
    });
    this.list.replaceChildren(...this.cameras.map(({ tile }) => tile));
  }

  /** The tiles as a stage (see stage.js) in a space of the window; also their `columns` and `aspect`. */
  fit(space) {
    const shapes = this.cameras.filter(({ picture }) => picture).map(({ picture }) => picture.width / picture.height);
    const aspect = Math.max(LEAST_ASPECT, shapes.toSorted((a, b) => a - b)[shapes.length >> 1] ?? 1.6); // most have it, or less
    const count = this.cameras.length;
    const { columns, width: size } = layOut(count, aspect, { width: space.width, height: space.height - BAR });
    const rows = Math.ceil(count / columns);
    const height = rows * (size / aspect + captionOf(size)) + GAP * (rows - 1) + BAR;
    return { columns, aspect, size, width: columns * size + GAP * (columns - 1), height };
  }

  /** Arrange the tiles as they were fitted in; returns the pixels that a tile's picture is wide. */
  arrange({ columns, aspect, size }) {
    this.list.style.setProperty("--columns", columns);
    this.list.style.setProperty("--shape", aspect.toFixed(4));
    this.list.style.setProperty("--tile", `${Math.floor(size)}px`);
    return Math.min(WIDEST_PICTURE, Math.ceil(size * (devicePixelRatio || 1)));
  }

  /** @param options {score, tokens (whether to show)} */
  show({ score, tokens }) {
    for (const { picture, part, ...camera } of this.cameras) {
      const said = camera.error || (camera.lost ? camera.notice || "no signal" : camera.notice);
      camera.tile.dataset.state = camera.error ? "error" : camera.lost ? "lost" : "";
      write(part(".said"), said || (picture ? "" : "waiting for the first frame"));
      if (!picture) continue;
      const panels = [{ detections: picture.detections, tokens: tokens ? picture.tokens : null, caption: "" }];
      drawPicture({ canvas: part("canvas"), frame: picture.frame, picture, score, panels, grid: [1, 1] });
      const gflops = median(usual(camera.costs).map((cost) => cost.gflops));
      const full = camera.full_gflops;
      write(part(".tokens"), picture.updated === null ? "" : `${Math.round(100 * picture.updated)} % of tokens`);
      write(part(".cost"), full ? `${formatNumber(gflops)} of ${formatNumber(full)} GFlops` : `${formatNumber(gflops)} GFlops`);
      write(part(".rate"), camera.frames_per_second ? `${camera.frames_per_second.toFixed(1)} / s` : "");
      part(".part i").style.width = `${full ? Math.min(100, (100 * gflops) / full) : 100}%`;
    }
  }

  /** What a frame costs, and would cost in full, the mean over the cameras that have told both: {gflops, full}. */
  totals() {
    const known = this.cameras.filter(({ costs, full_gflops: full }) => costs.length && full);
    const mean = (values) => values.reduce((total, value) => total + value, 0) / known.length;
    return {
      gflops: mean(known.map(({ costs }) => median(usual(costs).map((cost) => cost.gflops)))),
      full: mean(known.map(({ full_gflops: full }) => full)),
    };
  }
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
