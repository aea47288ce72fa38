// Bar charts of the last frames' costs.

import { HISTORY, median } from "./costs.js";

/**
 * One cost of the last frames.
 * @param values [value, computed in full] of each, oldest first
 * @param level a value to mark, or null
 */
export function drawChart(canvas, values, level) {
  const scale = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const color = (name) => style.getPropertyValue(name);
  const top = ceiling(highest(values.map(([value]) => value), level));
  const y = (value) => height - 1 - (Math.min(value, top) / top) * (height - 8);

  context.font = `11px ${style.fontFamily}`;
  context.strokeStyle = color("--rule");
  context.beginPath();
  for (const part of [0, 0.5, 1]) {
    context.moveTo(0, Math.round(y(part * top)) + 0.5);
    context.lineTo(width, Math.round(y(part * top)) + 0.5);
  }
  context.stroke();

  const step = width / HISTORY;
  const left = width - values.length * step;
  values.forEach(([value, full], i) => {
    const bar = Math.max(step - 0.35, 0.8);
    context.fillStyle = color(full ? "--full" : "--bar");
    context.fillRect(left + i * step, y(value), bar, height - y(value));
    if (value > top) drawCut(context, left + i * step + bar / 2, y(value));
  });

  if (level !== null) {
    context.strokeStyle = color("--soft");
    context.setLineDash([1.5, 3]);
    context.beginPath();
    context.moveTo(0, y(level));
    context.lineTo(width, y(level));
    context.stroke();
  }

  // The scale, on a ground of its own, so that bars do not run through it.
  const label = formatNumber(top);
  context.fillStyle = color("--card");
  context.globalAlpha = 0.8;
  context.fillRect(0, y(top) + 2, context.measureText(label).width + 6, 14);
  context.globalAlpha = 1;
  context.fillStyle = color("--soft");
  context.fillText(label, 2, y(top) + 13);
}

/** What the scale has to reach. Single frames far above the others, as a first one is, are cut off. */
function highest(values, level) {
  const usual = [...values].sort((a, b) => a - b).at(Math.floor(0.97 * (values.length - 1))) ?? 0;
  return Math.max(Math.min(usual, 3 * (median(values) ?? 0)), level ?? 0);
}

/** A mark on a bar that is higher than the chart. */
function drawCut(context, x, y) {
  context.beginPath();
  context.moveTo(x - 4, y);
  context.lineTo(x, y - 6);
  context.lineTo(x + 4, y);
  context.fill();
}

/** A round number that is not below the value. */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((factor) => factor * power >= value * 0.999) * power;
}

/** Three digits or so. */
export function formatNumber(value) {
  if (value >= 100) return value.toFixed(0);
  if (value >= 10) return value.toFixed(1).replace(/\.0$/, "");
  return value.toFixed(value >= 1 ? 2 : 3).replace(/0+$/, "").replace(/\.$/, "");
}
