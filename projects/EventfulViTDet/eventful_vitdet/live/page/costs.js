// What the last frames cost, and how much the eventful model saves: by medians, as single times are noisy.

export const HISTORY = 300;
const RECENT = 60;
const SHOWN_FRAMES = 15; // whose median the figures are

/** The costs of a camera with new ones behind them. */
export function joinCosts(costs, added) {
  // A server that was restarted counts from the beginning, and one that was asked for another view tells all.
  const starts = added.length && costs.length && added[0].serial <= costs.at(-1).serial;
  return [...(starts ? [] : costs), ...added].slice(-HISTORY);
}

/** The last frames that are like the newest: of the frames in between, not of one that began a sequence, unless there
 * are no others. */
export function usual(costs) {
  const newest = costs.at(-1);
  const kind = newest.kind === "flush" && costs.at(-2)?.kind === "eventful" ? "eventful" : newest.kind;
  return costs.slice(-SHOWN_FRAMES).filter((cost) => cost.kind === kind);
}

export function median(values) {
  if (!values.length) return null;
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * What frames of the dense model cost, or, where it has not run, frames that were computed in full at the start of a
 * sequence. The session's first frame is none of them: it takes long for other reasons.
 * @returns {{value: number | null, name: string, count: number}} The median of `count` frames.
 */
export function reference(costs, key) {
  const beside = costs.map((cost) => cost[`dense_${key}`]).filter((value) => value !== undefined);
  if (beside.length) return summary(beside, "dense");
  for (const [kind, name] of [["dense", "dense"], ["flush", "in full"]]) {
    const values = costs.filter((cost) => cost.kind === kind && cost.serial > 0).map((cost) => cost[key]);
    if (values.length) return summary(values, name);
  }
  const first = costs.find((cost) => cost.serial === 0 && cost.kind !== "eventful");
  return summary(first && key === "gflops" ? [first.gflops] : [], "in full");
}

function summary(values, name) {
  const recent = values.slice(-RECENT);
  return { value: median(recent), name, count: recent.length };
}

/** The median of the last eventful frames after the first of a sequence; null where there are none. */
export function later(costs, key) {
  return median(costs.filter((cost) => cost.kind === "eventful").slice(-RECENT).map((cost) => cost[key]));
}
