// The list of what is seen: detections, or actions by head.

/** A row with a name, its colour and its score. */
export function makeRow({ class: name, score, color }) {
  const row = document.createElement("li");
  const parts = ["i", "span", "div", "b"].map((tag) => document.createElement(tag));
  parts[0].style.setProperty("--c", `rgb(${color.join(" ")})`);
  parts[1].textContent = name;
  parts[2].style.setProperty("--w", `${100 * score}%`);
  parts[3].textContent = `${Math.round(100 * score)} %`;
  row.append(...parts);
  return row;
}

/** Lists the classes of each head, and makes the page one about actions. */
export function listActions(list, actions) {
  if (!document.body.classList.contains("actions")) {
    document.body.classList.add("actions");
    for (const element of document.querySelectorAll("[data-actions]")) element.textContent = element.dataset.actions;
  }
  const rows = actions.flatMap(({ head, seen, classes }) => {
    const title = document.createElement("li");
    title.className = "head";
    title.textContent = seen ? `${head}: ${seen}` : head;
    return [title, ...classes.map(makeRow)];
  });
  list.replaceChildren(...rows);
}
