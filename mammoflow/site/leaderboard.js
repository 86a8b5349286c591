"use strict";
// Sorting and filtering of the leaderboard.
const table = document.getElementById("models");
const rows = [...table.tBodies[0].rows];
const filters = Object.fromEntries(["text", "kind", "data", "registered"].map((id) => [id, document.getElementById(id)]));

function sort(heading) {
  const descending = heading.getAttribute("aria-sort") !== "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const at = heading.cellIndex;
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const values = new Map(rows.map((row) => [row, row.cells[at].dataset.value]));
  const numbers = [...values.values()].every((value) => value !== "" && isFinite(value));
  rows.sort((a, b) => {
    const order = numbers ? values.get(a) - values.get(b) : compare(values.get(a), values.get(b));
    return descending ? -order : order;
  });
  table.tBodies[0].append(...rows);
}

function filter() {
  const text = filters.text.value.trim().toLowerCase();
  let shown = 0;
  for (const row of rows) {
    const fits =
      row.textContent.toLowerCase().includes(text) &&
      (!filters.kind.value || row.dataset.kind === filters.kind.value) &&
      (!filters.data.value || row.dataset.data === filters.data.value) &&
      (!filters.registered.checked || row.dataset.registered === "yes");
    row.hidden = !fits;
    shown += fits;
  }
  document.getElementById("count").textContent = `${shown} of ${rows.length} models`;
}

for (const heading of table.tHead.rows[0].cells) heading.firstElementChild.addEventListener("click", () => sort(heading));
for (const each of Object.values(filters)) each.addEventListener("input", filter);
