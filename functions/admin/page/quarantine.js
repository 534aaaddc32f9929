// Owns the dialog with a project's records that stand aside, and their replay.

import { get, post, query } from "./api.js";
import { ask } from "./ask.js";
import { at, foreign, h, keep } from "./element.js";
import { count, moving, number } from "./time.js";

let isAdmin = false;
let shown;

export const setUpFor = (mayAct) => (isAdmin = mayAct);

export async function open(project) {
  shown = { project, records: [], next: undefined };
  draw({ ...shown, isLoading: true });
  at("aside").showModal();
  await more(shown);
}

async function more(list) {
  try {
    const page = await get(`api/admin/quarantine${query({ project: list.project, after: list.next })}`);
    list.records.push(...page.records);
    list.next = page.next;
    if (shown === list) draw({ ...list, isAdmin });
  } catch (failure) {
    if (shown === list) draw({ ...list, isAdmin, trouble: `They can’t be read: ${failure.message}. Close this and try again.` });
  }
}

const draw = (item) => keep(at("aside-in"), [item], () => "aside", whole);

function whole({ project, records, next, isAdmin, isLoading, trouble }) {
  const close = h("button", { type: "button", class: "close", "data-key": "close", "aria-label": "Close", onclick: () => at("aside").close() }, "×");
  const list = shown;
  return h(
    "div",
    {},
    h("div", { class: "dialog-head" }, h("h2", { id: "aside-title" }, "Set aside in ", foreign(project)), close),
    h("p", { class: "quiet" }, "These records failed by themselves; nothing waits for them. A new text or a replay lets one try again."),
    trouble && h("p", { class: "notice bad", role: "alert" }, trouble),
    isLoading && h("p", { class: "loading" }, h("span", { class: "spinner", "aria-hidden": "true" }), "Reading them…"),
    !isLoading && !trouble && records.length === 0 && h("p", { class: "empty" }, "None any more."),
    h("ul", { class: "rows" }, records.map(record)),
    next && h("p", {}, h("button", { type: "button", "data-key": "more", onclick: () => more(list) }, "More")),
    isAdmin && records.length > 0 && h("div", { class: "dialog-acts" }, replays(project, records)),
  );
}

function record({ recordId, reason, message, attempts, lastAttemptAt }) {
  return h(
    "li",
    { class: "row" },
    h("div", { class: "row-head" }, foreign(recordId, { class: "wrap strong" }), h("span", { class: "badge failed" }, reason)),
    h("div", { class: "row-text wrap" }, foreign(message ?? "", { dir: "auto" })),
    h("div", { class: "row-side" }, count(attempts, "attempt"), lastAttemptAt && [", the last ", moving(lastAttemptAt)]),
  );
}

// All of them, and those of each reason where there are several.
function replays(project, records) {
  const reasons = [...new Set(records.map(({ reason }) => reason))];
  const button = (reason, title) =>
    h("button", { type: "button", "data-key": `replay-${reason}`, onclick: () => replay(project, reason) }, title);
  return [reasons.length > 1 && reasons.map((reason) => button(reason, `Replay ${reason}`)), button(undefined, "Replay all")];
}

function replay(project, reason) {
  return ask({
    title: `Replay ${reason ? `what is ${reason}` : "all"} of the project ${project}?`,
    text: "These records wait to be embedded again; what is wrong with them may send them back here.",
    yes: "Replay",
    act: async () => {
      const outcome = await post("api/admin/quarantine/replay", { project, ...(reason ? { reason } : {}) });
      at("aside").close();
      return `${count(outcome.count, "record")} replayed.${outcome.more ? ` There may be more than these ${number(outcome.count)}: do it again.` : ""}`;
    },
  });
}
