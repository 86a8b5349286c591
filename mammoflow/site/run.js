"use strict";
// A run's page: the threshold, what it does to the test films, and the films themselves.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const NAMES = { tp: "True positive", fp: "False positive", fn: "False negative", tn: "True negative" };
const outcome = (malignant, score, threshold) =>
  malignant ? (score >= threshold ? "tp" : "fn") : score >= threshold ? "fp" : "tn";
const percent = (value) => `${(100 * value).toFixed(1)}%`;

function wilson(hits, of) {
  const z = 1.959963984540054;
  const share = hits / of;
  const middle = (share + (z * z) / (2 * of)) / (1 + (z * z) / of);
  const half = ((z / (1 + (z * z) / of)) * Math.sqrt((share * (1 - share)) / of + (z * z) / (4 * of * of)));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

function count(threshold) {
  const counts = { tp: 0, fp: 0, fn: 0, tn: 0 };
  data.scores.forEach((score, index) => counts[outcome(data.labels[index] === 1, score, threshold)]++);
  return counts;
}

function share(id, hits, of, what) {
  const [low, high] = wilson(hits, of);
  at(id).textContent = percent(hits / of);
  at(`${id}-more`).textContent = `${hits} of ${of} ${what}; ${percent(low)} to ${percent(high)}`;
}

let current = data.cutoff; // the slider's steps may not hold the cut-off itself

function show(threshold) {
  current = threshold;
  const counts = count(threshold);
  for (const [name, number] of Object.entries(counts)) at(name).textContent = number;
  const malignant = counts.tp + counts.fn;
  const benign = counts.fp + counts.tn;
  const called = counts.tp + counts.fp;
  at("value").textContent = threshold.toFixed(3);
  share("sensitivity", counts.tp, malignant, "malignant films");
  share("specificity", counts.tn, benign, "benign films");
  at("called").textContent = percent(called / (malignant + benign));
  at("called-more").textContent = `${called} of ${malignant + benign} films`;
  at("ppv").textContent = called ? percent(counts.tp / called) : "–";
  const point = { x: [[counts.fp / benign]], y: [[counts.tp / malignant]] };
  Plotly.restyle("roc", point, [data.charts.roc.data.length - 1]);
  Plotly.relayout("spread", { "shapes[0].x0": threshold, "shapes[0].x1": threshold });
  list();
}

const buttons = [...document.querySelectorAll(".case")];
let listed = [];

function list() {
  if (!buttons.length) return;
  listed = [];
  for (const button of buttons) {
    const film = data.cases[button.dataset.index];
    const found = outcome(film.malignant, film.score, current);
    button.querySelector(".outcome").textContent = NAMES[found];
    const fits =
      (!at("outcome").value || at("outcome").value === found) &&
      (!at("density").value || at("density").value === String(film.density));
    button.hidden = !fits;
    if (fits) listed.push(button);
  }
  const shares = Object.keys(NAMES).map((name) => [name, listed.filter((each) => each.textContent.startsWith(NAMES[name])).length]);
  const said = shares.filter(([, number]) => number).map(([name, number]) => `${number} ${NAMES[name].toLowerCase()}`);
  at("shown").textContent = `${listed.length} of ${buttons.length} films shown${said.length ? `: ${said.join(", ")}` : ""}`;
}

function order() {
  const sign = at("order").value === "low" ? 1 : -1;
  buttons.sort((a, b) => sign * (data.cases[a.dataset.index].score - data.cases[b.dataset.index].score));
  at("cases").append(...buttons);
  list();
}

let opened = null;

function open(button) {
  opened = button;
  const film = data.cases[button.dataset.index];
  const dialog = at("opened");
  at("opened-title").textContent = `${button.querySelector(".outcome").textContent}, ${film.view}`;
  const picture = button.querySelector("img");
  Object.assign(dialog.querySelector("img"), { src: picture.src, alt: picture.alt });
  const facts = [
    film.lesions.join(", ") || "no lesion recorded",
    film.density ? `density ${film.density}` : "density unknown",
    film.vendor || "maker unknown",
    `probability ${film.probability.toFixed(3)} after calibration`,
  ];
  dialog.querySelector("p").textContent = `${facts.join("; ")}.`;
  const body = dialog.querySelector("tbody");
  body.replaceChildren();
  for (const [name, score] of [["ensemble", film.score], ...Object.entries(film.members)]) {
    const row = body.insertRow();
    row.insertCell().textContent = name;
    const cell = row.insertCell();
    cell.textContent = score.toFixed(3);
    cell.className = "n";
  }
  if (!dialog.open) dialog.showModal();
}

function step(by) {
  const next = listed[listed.indexOf(opened) + by];
  if (next) open(next);
}

function reset() {
  at("threshold").value = data.cutoff;
  show(data.cutoff);
}

for (const [id, chart] of Object.entries(data.charts))
  Plotly.newPlot(id, chart.data, chart.layout, { responsive: true, displayModeBar: false });
at("threshold").addEventListener("input", () => show(Number(at("threshold").value)));
at("reset").addEventListener("click", reset);
if (buttons.length) {
  for (const id of ["outcome", "density"]) at(id).addEventListener("input", list);
  at("order").addEventListener("input", order);
  for (const button of buttons) button.addEventListener("click", () => open(button));
  at("before").addEventListener("click", () => step(-1));
  at("after").addEventListener("click", () => step(1));
  at("close").addEventListener("click", () => at("opened").close());
}
reset();
