// Owns how a job's status looks.

import { h } from "./element.js";
import { moving, now } from "./time.js";

export function badge(status) {
  const spinner = status === "PROCESSING" && h("span", { class: "spinner", "aria-hidden": "true" });
  return h("span", { class: `badge ${status.toLowerCase()}` }, spinner, status);
}

// A job that waits for its time says so.
export function due({ status, scheduledFor }) {
  if (status !== "PENDING" || Date.parse(scheduledFor) <= now()) return undefined;
  return h("span", { class: "quiet" }, "due ", moving(scheduledFor, "until"));
}
