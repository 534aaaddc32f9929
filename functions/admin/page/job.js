// Owns the dialog with all of one job: its attempts, progress and timeline, and its payload for who asks.

import { acts } from "./act.js";
import { get, query } from "./api.js";
import { badge, due } from "./badge.js";
import { at, foreign, h, keep } from "./element.js";
import { duration, exactTime, moving, now, number, span } from "./time.js";

let isAdmin = false;
let shown;
let withPayload = false;
let round = 0;

const dialog = () => at("job");

// Its address can be passed on: #job=12.
export function setUp() {
  addEventListener("hashchange", show);
  dialog().addEventListener("close", () => {
    [shown, withPayload] = [undefined, false];
    history.replaceState(null, "", `${location.pathname}${location.search}`);
  });
}

export const setUpFor = (mayAct) => (isAdmin = mayAct);

export function open(id) {
  history.replaceState(null, "", `#job=${id}`);
  return show();
}

// Reads and shows the job of the address, if there is one.
export async function show() {
  const id = /^#job=(\d{1,19})$/.exec(location.hash)?.[1];
  if (!id || at("figures").hidden) return;
  if (shown !== id) {
    [shown, withPayload] = [id, false];
    draw({ id, isLoading: true });
    if (!dialog().open) dialog().showModal();
  }
  const mine = (round += 1);
  try {
    const job = await get(`api/admin/jobs/${id}${query({ payload: withPayload ? "true" : "" })}`);
    if (mine === round && shown === id) draw({ id, job, isAdmin, withPayload });
  } catch (failure) {
    if (mine === round && shown === id && failure.status !== 401) draw({ id, trouble: told(failure, id) });
  }
}

function told({ status, message }, id) {
  if (status === 404) return `There is no job ${id}. It may have been deleted after its retention.`;
  return `The job can’t be read: ${message}. It is tried again.`;
}

const draw = (item) => keep(at("job-in"), [item], ({ id }) => id, whole);

function whole({ id, job, trouble, isAdmin, withPayload }) {
  const close = h("button", { type: "button", class: "close", "data-key": "close", "aria-label": "Close", onclick: () => dialog().close() }, "×");
  const title = h("h2", { id: "job-title" }, `Job ${id}`);
  const head = h("div", { class: "dialog-head" }, title, job && badge(job.status), job && due(job), close);
  if (trouble) return h("div", {}, head, h("p", { class: "notice bad", role: "alert" }, trouble));
  if (!job) return h("div", {}, head, h("p", { class: "loading" }, h("span", { class: "spinner", "aria-hidden": "true" }), "Reading the job…"));
  return h(
    "div",
    {},
    head,
    job.error && h("p", { class: "notice bad long", dir: "auto" }, job.error),
    h("dl", { class: "facts" }, facts(job).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    h("h3", {}, "Timeline"),
    h("ol", { class: "timeline" }, job.timeline.map(event)),
    result(job),
    isAdmin && [h("h3", {}, "Payload"), payload(job, withPayload)],
    isAdmin && h("div", { class: "dialog-acts" }, acts(job)),
  );
}

function facts(job) {
  const { current, total, message } = job.progress ?? {};
  const bar = total > 0 && h("progress", { max: total, value: current, "aria-label": "Progress" });
  const lease = job.leaseSecondsLeft;
  return [
    ["Project", foreign(job.project, { class: "wrap" })],
    ["Type", job.jobType],
    ["Attempts", `${job.attempts} of ${job.maxAttempts}${job.crashes > 0 ? `, ${number(job.crashes)} crashed` : ""}`],
    ["Priority", number(job.priority)],
    ["Lane", `${job.lane + 1} of ${job.lanes}`],
    ["Progress", total > 0 ? h("span", {}, bar, ` ${number(current)} of ${number(total)}`) : "–"],
    message && ["Message", foreign(message, { class: "wrap" })],
    ["Created", exactTime(job.createdAt)],
    job.startedAt && ["Started", exactTime(job.startedAt)],
    job.completedAt && ["Ended", exactTime(job.completedAt)],
    job.activeMs > 0 && ["Worked", duration(job.activeMs)],
    job.worker && ["Worker", foreign(job.worker, { class: "wrap" })],
    typeof lease === "number" && ["Lease", lease > 0 ? `${span(lease)} left` : `over for ${span(-lease)}`],
    job.stagedPieces > 0 && ["Staged pieces", number(job.stagedPieces)],
    job.rejected > 0 && ["Rejected", number(job.rejected)],
    job.holdsItsLane && ["Holds its lane", foreign(job.holdsItsLane, { class: "wrap" })],
  ].filter(Boolean);
}

function event({ at, what, detail }) {
  return h("li", {}, h("strong", {}, what), " ", moving(at, Date.parse(at) > now() ? "until" : "ago"), detail && h("div", { class: "wrap quiet" }, foreign(detail)));
}

// Its error stands above.
function result(job) {
  const { error, ...rest } = job.result ?? {};
  return Object.keys(rest).length > 0 && [h("h3", {}, "Result"), json(rest)];
}

const json = (value) => h("pre", { tabindex: "0", dir: "auto" }, JSON.stringify(value, null, 2));

function payload({ payload }, isShown) {
  if (!isShown) {
    const ask = () => {
      withPayload = true;
      show();
    };
    return h("p", {}, h("button", { type: "button", class: "small", "data-key": "payload", onclick: ask }, "Show the payload"), h("span", { class: "quiet" }, " It may hold the records’ texts."));
  }
  if (payload === null) return h("p", { class: "quiet" }, "None: a job’s payload is cleared once it is done with, and a VECTORIZE job has none.");
  return json(payload);
}
