// Where labels stand, so that they hide neither each other nor what they are about. Boxes are [x0, y0, x1, y1].
// The same rules as in draw/label_placement.py.

const LABEL_WEIGHT = 12;
const OUTSIDE_WEIGHT = 60;

/** The upper left corner for a label of a box; the chosen place joins `labels`. */
export function placeLabel(box, width, height, bounds, labels, boxes) {
  let best = null;
  let least = Infinity;
  for (const [x, y] of cornersAround(box, width, height, bounds)) {
    const place = [x, y, x + width, y + height];
    const outside = width * height - overlap(place, bounds);
    const cost = (LABEL_WEIGHT * total(place, labels) + OUTSIDE_WEIGHT * outside + total(place, boxes)) / (width * height);
    if (cost < least - 1e-6) [least, best] = [cost, place];
  }
  labels.push(best);
  return best;
}

/** Around the part of a box inside of `bounds`. */
function cornersAround(box, width, height, bounds) {
  const [x0, y0, x1, y1] = box.map((side, i) => into(side, 0, bounds[i % 2], bounds[(i % 2) + 2]));
  const spots = [
    [x0, y0 - height], [x1 - width, y0 - height], [x0, y1], [x1 - width, y1],
    [x1, y0], [x0 - width, y0], [x1, y1 - height], [x0 - width, y1 - height],
    [x0, y0], [x1 - width, y1 - height], [x0, y0 - 2 * height], [x0, y1 + height],
  ];
  return spots.map(([x, y]) => [into(x, width, bounds[0], bounds[2]), into(y, height, bounds[1], bounds[3])]);
}

const into = (start, length, low, high) => Math.max(low, Math.min(start, high - length));

const total = (box, others) => others.reduce((sum, other) => sum + overlap(box, other), 0);

function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return width > 0 && height > 0 ? width * height : 0;
}
