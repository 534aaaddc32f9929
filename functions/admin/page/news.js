// Owns what is told in a sentence: what an act came to, what everybody should know, and what changed, for who listens.

import { at, h, keep, setText } from "./element.js";
import { count } from "./time.js";

const KEPT_MS = 10_000;

let told;
let standing = [];
let before;
let timer;

// What an act came to.
export function tell(text, kind = "good") {
  clearTimeout(timer);
  told = { text, kind };
  // What went wrong stays until something else is told.
  if (kind === "good") timer = setTimeout(forget, KEPT_MS);
  draw();
}

function forget() {
  told = undefined;
  draw();
}

export function clear() {
  [standing, before] = [[], undefined];
  forget();
}

export function show({ paused, queueStats, recentJobs }) {
  standing = [];
  if (paused.all) {
    standing.push({ text: "Every project is paused: jobs are kept, and no worker takes them.", kind: "warn" });
  }
  draw();
  announce(queueStats, recentJobs);
}

function draw() {
  keep(at("notices"), told ? [told, ...standing] : standing, ({ text }) => text, ({ text, kind }) =>
    h("p", { class: `notice ${kind}` }, text),
  );
}

// Only what one would want to be interrupted for.
function announce({ failed }, jobs) {
  const ended = new Map(jobs.map(({ id, status }) => [id, status]));
  if (before) {
    const moved = (status) => jobs.filter((job) => job.status === status && before.ended.get(job.id) !== status).length;
    const parts = [];
    if (moved("COMPLETED") > 0) parts.push(`${count(moved("COMPLETED"), "job")} completed`);
    if (failed > before.failed) parts.push(`${count(failed - before.failed, "job")} failed`);
    if (parts.length > 0) setText(at("announcer"), `${parts.join(", ")}.`);
  }
  before = { failed, ended };
}
