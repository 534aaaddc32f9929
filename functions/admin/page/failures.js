// Owns the failed jobs by their reason.

import { get } from "./api.js";
import { at, foreign, h, rows } from "./element.js";
import { tell } from "./news.js";
import { number } from "./time.js";

let choose = () => {};
export const setUp = (callback) => (choose = callback);

export function show({ failures }) {
  rows(at("failures"), failures, ({ reason }) => reason, failure, "No job has failed.");
}

function failure({ reason, count }) {
  return h(
    "li",
    { class: "row" },
    h("div", { class: "row-head" }, h("span", { class: "badge failed count" }, number(count)), foreign(reason, { class: "wrap clamp", title: reason, dir: "auto" })),
    h(
      "div",
      { class: "row-text" },
      h("button", { type: "button", class: "link", "data-key": `example-${reason}`, onclick: () => example(reason) }, "The latest"),
      " · ",
      h("button", { type: "button", class: "link", "data-key": `all-${reason}`, onclick: () => choose("FAILED") }, "All failed jobs"),
    ),
  );
}

// Which job it was isn't part of each refresh.
async function example(reason) {
  try {
    const found = (await get("api/admin/failures")).find((failure) => failure.reason === reason);
    if (found) location.hash = `job=${found.exampleJobId}`;
    else tell("No job stands failed for this reason any more.");
  } catch (failure) {
    tell(`The job can’t be looked up: ${failure.message}. Try again.`, "bad");
  }
}
