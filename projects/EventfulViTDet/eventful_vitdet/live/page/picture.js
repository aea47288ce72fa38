// The frame, the tokens that were updated in it, and the boxes, drawn sharply at whatever size the page has.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
const TOKEN = "30 150 255";

/**
 * @param view {canvas, frame (an image), picture (as the server describes it), tokens (whether to show), score (0 to 1)}
 */
export function drawPicture({ canvas, frame, picture, tokens, score }) {
  const screen = canvas.getBoundingClientRect();
  const pixels = devicePixelRatio || 1;
  const scale = Math.min(screen.width / picture.width, screen.height / picture.height);
  canvas.width = Math.max(1, Math.round(picture.width * scale * pixels));
  canvas.height = Math.max(1, Math.round(picture.height * scale * pixels));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(frame, 0, 0, canvas.width, canvas.height);
  context.scale(canvas.width / picture.width, canvas.height / picture.height);
  if (tokens && picture.tokens) drawTokens(context, picture);
  context.setTransform(pixels, 0, 0, pixels, 0, 0);
  const shown = picture.detections.filter((detection) => detection.score >= score);
  for (const detection of shown.toReversed()) drawBox(context, detection, scale, canvas.width / pixels);
}

function drawTokens(context, { tokens }) {
  const { rows, columns, area } = tokens;
  const share = Uint8Array.from(atob(tokens.share), (character) => character.charCodeAt(0));
  const height = area[0] / rows;
  const width = area[1] / columns;
  for (let i = 0; i < share.length; i++) {
    if (!share[i]) continue;
    const x = (i % columns) * width;
    const y = Math.floor(i / columns) * height;
    context.fillStyle = `rgb(${TOKEN} / ${0.2 + 0.4 * (share[i] / 255)})`;
    context.fillRect(x, y, width, height);
    context.strokeStyle = `rgb(${TOKEN} / 0.55)`;
    context.lineWidth = Math.min(width, height) / 24;
    context.strokeRect(x, y, width, height);
  }
}

function drawBox(context, { box, color, score, class: name }, scale, right) {
  const [x0, y0, x1, y1] = box.map((value) => value * scale);
  const paint = `rgb(${color.join(" ")})`;
  context.lineWidth = 2;
  context.strokeStyle = paint;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  const text = `${name} ${Math.round(100 * score)}%`;
  context.font = `600 13px ${FONT}`;
  const width = context.measureText(text).width + 10;
  const x = Math.max(0, Math.min(x0 - 1, right - width));
  const y = y0 >= 20 ? y0 - 20 : Math.max(0, y0);
  context.fillStyle = paint;
  context.fillRect(x, y, width, 20);
  const [red, green, blue] = color;
  context.fillStyle = 0.3 * red + 0.59 * green + 0.11 * blue > 130 ? "#000" : "#fff";
  context.fillText(text, x + 5, y + 14.5);
}
