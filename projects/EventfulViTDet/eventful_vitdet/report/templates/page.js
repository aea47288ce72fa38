"use strict";
// The page is complete without this script: it only chooses what to show, and reads values off the timelines.

for (const choice of document.querySelectorAll("[data-chooses]")) {
  const parts = [...document.querySelectorAll(`[data-part="${choice.dataset.chooses}"]`)];
  const show = (key) => {
    for (const part of parts) part.hidden = part.dataset.key !== key;
    for (const button of choice.querySelectorAll("button")) button.ariaPressed = String(button.value === key);
  };
  choice.hidden = parts.length < 2;
  choice.addEventListener("change", (event) => show(event.target.value));
  choice.addEventListener("click", (event) => event.target.matches("button") && show(event.target.value));
  if (parts.length) show(parts[0].dataset.key);
}

// What is wider than the screen says so.
for (const area of document.querySelectorAll(".scroll")) {
  const hint = document.createElement("p");
  hint.className = "sideways";
  hint.textContent = "scroll sideways for more →";
  area.before(hint);
  new ResizeObserver(() => hint.classList.toggle("wide", area.scrollWidth > area.clientWidth + 1)).observe(area);
}

const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);

function readTimeline(chart, event) {
  const { left, right, last, group, series } = JSON.parse(chart.dataset.values);
  const box = chart.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
  const place = (x - left) / (right - left);
  const index = Math.min(Math.round((place * last) / group), series[0][2].length - 1);
  if (place < -0.02 || place > 1.02 || index < 0) return hideTip(chart);
  const line = chart.querySelector(".cursor");
  const at = left + ((right - left) * index * group) / last;
  line.setAttribute("x1", at);
  line.setAttribute("x2", at);
  chart.classList.add("read");
  tip.replaceChildren(`frame ${index * group}`);
  for (const [label, style, values] of series) {
    const swatch = document.createElement("span");
    swatch.className = `swatch ${style}`;
    tip.append("\n", swatch, `${label}  ${values[index]}`);
  }
  tip.hidden = false;
  const beside = event.clientX + 16 + tip.offsetWidth > innerWidth ? -16 - tip.offsetWidth : 16;
  tip.style.left = `${event.clientX + beside}px`;
  tip.style.top = `${Math.min(event.clientY + 12, innerHeight - tip.offsetHeight - 8)}px`;
}

function hideTip(chart) {
  tip.hidden = true;
  chart.classList.remove("read");
}

for (const chart of document.querySelectorAll(".timeline")) {
  chart.addEventListener("pointermove", (event) => readTimeline(chart, event));
  chart.addEventListener("pointerleave", () => hideTip(chart));
}
