// Owns the tiles: how many jobs stand in each status, and how long the oldest one has waited.

import { at, h, keep } from "./element.js";
import { moving, now, number } from "./time.js";

const TILES = [
  ["pending", "Pending"],
  ["processing", "Processing"],
  ["completed", "Completed"],
  ["failed", "Failed"],
];
// Work that starts within one is nothing to worry about.
const LATE_MINUTES = 15;

let choose = () => {};
export const setUp = (callback) => (choose = callback);

export function show({ queueStats, capped, oldestPendingJob }) {
  const tiles = TILES.map(([name, title]) => ({
    name,
    title,
    value: `${number(queueStats[name])}${capped.includes(name) ? "+" : ""}`,
  }));
  keep(at("stats"), [...tiles, { name: "oldest", oldest: oldestPendingJob }], ({ name }) => name, tile);
}

function tile(item) {
  return item.name === "oldest" ? oldest(item.oldest) : counted(item);
}

function counted({ name, title, value }) {
  return h(
    "button",
    { type: "button", class: `tile ${name}`, "data-key": name, onclick: () => choose(name.toUpperCase()) },
    h("span", { class: "tile-title" }, title),
    h("span", { class: "tile-value" }, value),
    h("span", { class: "unseen" }, " – show these jobs"),
  );
}

function oldest(job) {
  const value = job
    ? moving(new Date(now() - job.ageMinutes * 60_000).toISOString(), "age")
    : "None";
  const isLate = job && job.ageMinutes >= LATE_MINUTES;
  return h(
    "div",
    { class: `tile oldest${isLate ? " late" : ""}` },
    h("span", { class: "tile-title" }, "Oldest pending", job && h("a", { href: `#job=${job.id}`, "aria-label": `job ${job.id}` }, `#${job.id}`)),
    h("span", { class: "tile-value" }, value),
  );
}
