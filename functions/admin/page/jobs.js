// Owns the list of jobs: its filters, its pages, and the acts on all that a filter chooses.

import { acts, bulkActs } from "./act.js";
import { get, query } from "./api.js";
import { badge, due } from "./badge.js";
import { at, foreign, h, keep, setText } from "./element.js";
import { open } from "./job.js";
import { duration, moving, number } from "./time.js";

const FILTERS = ["status", "type", "project", "search"];
const TYPING_MS = 300;

let recent = [];
let isAdmin = false;
let paused = [];
// The cursors of the pages up to this one; none: the newest.
let pages = [];
let next = null;
let round = 0;
let typing;

const form = () => at("filters");
const chosen = () => Object.fromEntries(FILTERS.map((name) => [name, form().elements[name].value.trim()]));
const isFiltered = () => Object.values(chosen()).some((value) => value);

export function setUp() {
  const given = new URLSearchParams(location.search);
  for (const name of FILTERS) {
    const value = given.get(name) ?? "";
    // Projects aren't known yet.
    if (name === "project" && value) form().elements.project.append(h("option", {}, value));
    form().elements[name].value = value;
  }
  form().addEventListener("submit", (event) => event.preventDefault());
  form().addEventListener("change", anew);
  form().elements.search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(anew, TYPING_MS);
  });
  at("clear").addEventListener("click", () => {
    form().reset();
    for (const name of FILTERS) form().elements[name].value = "";
    anew();
    form().elements.status.focus();
  });
  at("older").addEventListener("click", () => turn([...pages, next]));
  at("newest").addEventListener("click", () => turn([]));
}

export function filterByStatus(status) {
  form().elements.status.value = status;
  anew();
  at("jobs-title").scrollIntoView({ block: "start" });
  form().elements.status.focus({ preventScroll: true });
}

export function setUpFor(monitor, mayAct) {
  [recent, paused, isAdmin] = [monitor.recentJobs, monitor.paused.projects, mayAct];
  const field = form().elements.project;
  const value = field.value;
  const names = [...new Set([...monitor.coverage.map(({ project }) => project), ...paused, ...(value ? [value] : [])])];
  keep(field, ["", ...names.sort()], (name) => `project ${name}`, (name) => h("option", { value: name }, name || "All"));
  field.value = value;
}

// Whoever signs in next begins anew.
export function forget() {
  [recent, pages, next] = [[], [], null];
  round += 1;
  at("jobs-rows").replaceChildren();
}

function anew() {
  clearTimeout(typing);
  history.replaceState(null, "", `${location.pathname}${query(chosen())}${location.hash}`);
  return turn([]);
}

async function turn(to) {
  pages = to;
  await show();
  setText(at("announcer"), at("jobs-none").hidden ? `${at("jobs-rows").children.length} jobs shown` : "No jobs shown");
}

// The newest jobs came with the figures; others are asked for.
export async function show() {
  const mine = (round += 1);
  at("clear").disabled = !isFiltered();
  if (!isFiltered() && pages.length === 0) {
    // As many as a page has: there may be more.
    next = recent.length >= 50 ? recent.at(-1).id : null;
    return draw(recent);
  }
  try {
    const page = await get(`api/admin/jobs${query({ ...chosen(), before: pages.at(-1) })}`);
    if (mine !== round) return;
    next = page.next;
    draw(page.jobs);
  } catch (failure) {
    if (mine !== round || failure.status === 401) return;
    at("jobs-error").hidden = false;
    setText(at("jobs-error"), `These jobs can’t be read: ${failure.message}. Change the filters, or wait for the next try.`);
    at("jobs").classList.add("stale");
  }
}

function draw(jobs) {
  at("jobs-error").hidden = true;
  at("jobs").classList.remove("stale");
  keep(at("jobs-rows"), jobs.map((job) => ({ job, isAdmin, isPaused: paused.includes(job.project) })), ({ job }) => job.id, row);
  at("jobs").hidden = jobs.length === 0;
  at("jobs-none").hidden = jobs.length > 0;
  setText(at("jobs-none"), isFiltered() ? "No job is like that. Change or clear the filters." : "No jobs yet. Send records: cronvec ingest FILE, or POST /api/ingest.");
  at("acts-head").hidden = !isAdmin;
  at("older").disabled = next === null;
  at("newest").disabled = pages.length === 0;
  setText(at("page-text"), pages.length > 0 ? `Page ${number(pages.length + 1)}` : jobs.length > 0 ? "The newest" : "");
  keep(at("bulk"), isAdmin && jobs.length > 0 ? [chosen()] : [], JSON.stringify, bulkActs);
}

const cell = (title, attributes, ...children) => h("td", { role: "cell", "data-title": title, ...attributes }, ...children);

function row({ job, isAdmin, isPaused }) {
  const show = (event) => {
    event.preventDefault();
    open(job.id);
  };
  return h(
    "tr",
    { role: "row" },
    cell("Job", { class: "id" }, h("a", { href: `#job=${job.id}`, "data-key": `open-${job.id}`, onclick: show }, job.id), h("span", { class: "quiet type" }, job.jobType)),
    cell("Project", { class: "project" }, foreign(job.project, { class: "cut", title: job.project })),
    cell("Status", {}, badge(job.status), due(job), isPaused && job.status === "PENDING" && h("span", { class: "quiet" }, "project paused")),
    cell("Progress", { class: "progress" }, progress(job)),
    cell("Attempts", { class: "right" }, `${job.attempts} of ${job.maxAttempts}`),
    cell("Priority", { class: "right" }, number(job.priority)),
    cell("Created", { class: "right" }, moving(job.createdAt)),
    cell("Worked", { class: "right" }, job.result?.activeMs === undefined ? "–" : duration(job.result.activeMs)),
    isAdmin && cell("", { class: "acts" }, acts(job)),
  );
}

function progress(job) {
  if (job.error && job.status !== "COMPLETED") return foreign(job.error, { class: "error cut2", title: job.error, dir: "auto" });
  const { current, total, message } = job.progress ?? {};
  const saved = job.result?.savedCount;
  if (job.status === "COMPLETED" && saved !== undefined) return `${number(saved)} saved, ${number(job.result.skippedCount ?? 0)} unchanged`;
  if (!(total > 0)) return message ? foreign(message, { class: "cut", title: message }) : "–";
  return [
    job.status !== "COMPLETED" && h("progress", { max: total, value: current, "aria-label": `Job ${job.id}` }),
    h("span", { class: "cut", title: message }, `${number(current)} of ${number(total)}`),
  ];
}
