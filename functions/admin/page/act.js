// Owns what can be done to jobs: retry and cancel, of one or of all that a filter chooses.

import { post, query } from "./api.js";
import { ask } from "./ask.js";
import { h } from "./element.js";
import { count } from "./time.js";

const RETRIED = ["FAILED", "CANCELLED"];
const CANCELLED = ["PENDING", "PROCESSING"];

export function acts({ id, status }) {
  const button = (key, title, act, more = "") =>
    h("button", { type: "button", class: `small${more}`, "data-key": `${key}-${id}`, "aria-label": `${title} job ${id}`, onclick: () => act(id) }, title);
  if (RETRIED.includes(status)) return button("retry", "Retry", retry);
  if (CANCELLED.includes(status)) return button("cancel", "Cancel", cancel);
  return undefined;
}

const retry = (id) =>
  ask({
    title: `Retry job ${id}?`,
    text: "It goes back into the queue, and its attempts start anew.",
    yes: "Retry",
    act: async () => {
      await post(`api/admin/queue/retry${query({ jobId: id })}`);
      return `Job ${id} is in the queue again.`;
    },
  });

const cancel = (id) =>
  ask({
    title: `Cancel job ${id}?`,
    text: "It leaves the queue, also while it runs. What it has stored stays; it can be retried later.",
    yes: "Cancel the job",
    danger: true,
    act: async () => {
      await post(`api/admin/queue/cancel${query({ jobId: id })}`);
      return `Job ${id} is cancelled.`;
    },
  });

// Of these filters; a search chooses single jobs, and nothing is done to many by it.
export function bulkActs({ search, ...filter }) {
  const fits = (statuses) => !search && (!filter.status || statuses.includes(filter.status));
  const button = (key, title, act) => h("button", { type: "button", class: "small", "data-key": key, onclick: act }, title);
  return h(
    "div",
    { class: "acts" },
    fits(RETRIED) && button("retry-all", filter.status === "CANCELLED" ? "Retry cancelled…" : "Retry failed…", () => retryAll(filter)),
    fits(CANCELLED) && button("cancel-all", `Cancel ${filter.status ? filter.status.toLowerCase() : "unfinished"}…`, () => cancelAll(filter)),
  );
}

const given = (filter) => Object.fromEntries(Object.entries(filter).filter(([, value]) => value));

function named(statuses, { type, project }) {
  return `every job that is ${statuses}${type ? `, of the type ${type}` : ""}${project ? `, of the project ${project}` : ""}`;
}

const many = (path, filter, done) => async () => {
  const outcome = await post(path, { filter: given(filter) });
  const jobs = count(outcome.count, "job");
  return `${jobs} ${done}.${outcome.more ? " There may be more: do it again." : ""}`;
};

const retryAll = (filter) =>
  ask({
    title: "Retry all of these?",
    text: `It concerns ${named(filter.status || "FAILED", filter)}. Their attempts start anew; jobs whose lane is taken are passed over.`,
    yes: "Retry all",
    act: many("api/admin/jobs/retry", filter, "in the queue again"),
  });

const cancelAll = (filter) =>
  ask({
    title: "Cancel all of these?",
    text: `It concerns ${named(filter.status || "PENDING or PROCESSING", filter)}. What they have stored stays.`,
    yes: "Cancel all",
    danger: true,
    act: many("api/admin/jobs/cancel", filter, "cancelled"),
  });
