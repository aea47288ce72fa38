// The frame, the tokens that were recomputed in it, and the boxes, drawn sharply at whatever size the page has. Beside
// it, where that is asked for, the same frame as the dense model sees it.

import { placeLabel } from "./labels.js";

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
const TOKEN = "30 150 255";
const GAP = 6;
const SMALL = 250; // pixels of a picture that has no room for scores

/**
 * @param view {canvas, frame (an image), picture (as the server describes it), tokens (whether to show), score (0 to 1),
 *   panels: [{detections, caption, tokens}], grid: [columns, rows]}
 */
export function drawPicture({ canvas, frame, picture, score, panels, grid }) {
  const screen = canvas.getBoundingClientRect();
  const pixels = devicePixelRatio || 1;
  const [columns, rows] = grid;
  const scale = Math.min(
    (screen.width - GAP * (columns - 1)) / columns / picture.width,
    (screen.height - GAP * (rows - 1)) / rows / picture.height,
  );
  const [width, height] = [picture.width * scale, picture.height * scale];
  canvas.width = Math.max(1, Math.round((columns * width + GAP * (columns - 1)) * pixels));
  canvas.height = Math.max(1, Math.round((rows * height + GAP * (rows - 1)) * pixels));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  panels.forEach((panel, i) => {
    const [x, y] = [(i % columns) * (width + GAP), Math.floor(i / columns) * (height + GAP)];
    context.setTransform(pixels, 0, 0, pixels, x * pixels, y * pixels);
    context.save();
    context.beginPath();
    context.rect(0, 0, width, height);
    context.clip();
    context.drawImage(frame, 0, 0, width, height);
    if (panel.tokens) drawTokens(context, panel.tokens, scale);
    drawDetections(context, panel, score, scale, width, height);
    context.restore();
  });
}

function drawTokens(context, { rows, columns, area, share: encoded }, scale) {
  const share = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  const [width, height] = [(area[1] / columns) * scale, (area[0] / rows) * scale];
  const line = Math.max(1, Math.min(width, height) / 14);
  const updated = (row, column) =>
    row < 0 || column < 0 || row >= rows || column >= columns || share[row * columns + column] > 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const part = share[row * columns + column] / 255;
      if (!part) continue;
      const [x, y] = [column * width, row * height];
      context.fillStyle = `rgb(${TOKEN} / ${0.06 + 0.24 * part})`;
      context.fillRect(x, y, width, height);
      // A line around neighbouring updated tokens, and not around each.
      context.fillStyle = `rgb(${TOKEN} / ${0.15 + 0.7 * part})`;
      if (!updated(row - 1, column)) context.fillRect(x, y, width, line);
      if (!updated(row + 1, column)) context.fillRect(x, y + height - line, width, line);
      if (!updated(row, column - 1)) context.fillRect(x, y, line, height);
      if (!updated(row, column + 1)) context.fillRect(x + width - line, y, line, height);
    }
  }
}

function drawDetections(context, { detections, caption }, score, scale, width, height) {
  const small = width < SMALL;
  const size = Math.max(small ? 9 : 11, Math.min(20, 0.023 * Math.min(width, height)));
  const bounds = [0, 0, width, height];
  const labels = [];
  context.font = `600 ${size}px ${FONT}`;
  if (caption) labels.push(drawText(context, caption, [0, 0], size, "rgb(15 18 24 / .82)", "#fff"));
  const shown = detections.filter((detection) => detection.score >= score);
  const boxes = shown.map(({ box }) => box.map((value) => value * scale));
  shown.toReversed().forEach(({ color, outline }) => drawMask(context, outline ?? [], color, scale));
  shown.toReversed().forEach(({ color }, i) => {
    const [x0, y0, x1, y1] = boxes[shown.length - 1 - i];
    context.lineWidth = Math.max(1.5, size / 8);
    context.strokeStyle = `rgb(${color.join(" ")})`;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  });
  shown.forEach(({ class: name, score: value, color }, i) => {
    const text = small ? name : `${name} ${Math.round(100 * value)}%`;
    const [labelWidth, labelHeight] = textSize(context, text, size);
    const [x, y] = placeLabel(boxes[i], labelWidth, labelHeight, bounds, labels, boxes);
    const [red, green, blue] = color;
    const ink = 0.3 * red + 0.59 * green + 0.11 * blue > 130 ? "#000" : "#fff";
    drawText(context, text, [x, y], size, `rgb(${color.join(" ")})`, ink);
  });
}

/** Tints what an object covers. @param outline polygons [x, y, x, y, ...] around it and around holes in it */
function drawMask(context, outline, color, scale) {
  context.fillStyle = `rgb(${color.join(" ")} / .4)`;
  context.beginPath();
  for (const points of outline) {
    context.moveTo(points[0] * scale, points[1] * scale);
    for (let i = 2; i < points.length; i += 2) context.lineTo(points[i] * scale, points[i + 1] * scale);
    context.closePath();
  }
  context.fill("evenodd");
}

const textSize = (context, text, size) => [context.measureText(text).width + 0.75 * size, 1.5 * size];

function drawText(context, text, [x, y], size, ground, ink) {
  const [width, height] = textSize(context, text, size);
  context.fillStyle = ground;
  context.fillRect(x, y, width, height);
  context.fillStyle = ink;
  context.fillText(text, x + 0.375 * size, y + 1.1 * size);
  return [x, y, x + width, y + height];
}
