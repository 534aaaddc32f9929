// Owns the workers, when each was called last and is next, and the endpoints that rest.

import { at, foreign, h, rows } from "./element.js";
import { duration, moving, number } from "./time.js";

export function show({ workers, endpoints }) {
  rows(
    at("workers"),
    workers,
    ({ name }) => name,
    worker,
    "No worker has been called yet. Check the schedule, or try one: cronvec tick vectorization.",
  );
  rows(at("endpoints"), endpoints, ({ endpoint }) => endpoint, rest, "None: every provider is asked.");
}

function worker({ name, lastSeenAt, lastDurationMs, lastResult, isRunning, nextTickAt }) {
  return h(
    "li",
    { class: "row" },
    h("div", { class: "row-head" }, h("strong", {}, name), isRunning && h("span", { class: "badge processing" }, "running")),
    h(
      "div",
      { class: "row-text" },
      "last tick ",
      moving(lastSeenAt),
      lastDurationMs !== null && !isRunning && `, took ${duration(lastDurationMs)}`,
      lastResult?.error ? [", ", h("span", { class: "error" }, "failed: ", foreign(lastResult.error))] : worked(lastResult),
    ),
    nextTickAt && h("div", { class: "row-side" }, "next ", moving(nextTickAt, "next")),
  );
}

function worked(result) {
  const parts = [];
  if (result?.records > 0) parts.push(`${number(result.records)} records`);
  if (result?.deletedCount > 0) parts.push(`${number(result.deletedCount)} deleted`);
  if (result?.stoppedBecause && result.stoppedBecause !== "drained") parts.push(`stopped: ${result.stoppedBecause}`);
  return parts.length > 0 && `, ${parts.join(", ")}`;
}

function rest({ endpoint, until, circuit, why }) {
  return h(
    "li",
    { class: "row" },
    h("div", { class: "row-head" }, foreign(endpoint, { class: "wrap" }), h("span", { class: "badge failed" }, circuit ? "open circuit" : "paused")),
    h("div", { class: "row-text wrap" }, foreign(why)),
    h("div", { class: "row-side" }, circuit ? "next try " : "asked again ", moving(until, "until")),
  );
}
