// Owns the two charts: records embedded and failed, minute by minute and hour by hour.

import { at, h, keep, svg } from "./element.js";
import { count, now, number, shortTime } from "./time.js";

const WINDOWS = [
  { name: "hour", title: "Last hour", unit: "a minute", milliseconds: 60_000, bars: 60, left: "60 min ago" },
  { name: "day", title: "Last day", unit: "an hour", milliseconds: 3_600_000, bars: 24, left: "24 h ago" },
];
const HEIGHT = 100;

export function show(throughput) {
  const charts = WINDOWS.map((window) => ({ ...window, flow: filled(window, throughput[window.name]) }));
  keep(at("throughput"), charts, ({ name }) => name, chart);
}

// What isn't there is nothing: a bar for each minute or hour up to this one.
function filled({ milliseconds, bars }, flow) {
  const place = (time) => Math.floor(time / milliseconds);
  const last = place(now());
  const known = new Map(flow.map((one) => [place(Date.parse(one.at)), one]));
  return Array.from({ length: bars }, (_, index) => {
    const bucket = last - bars + 1 + index;
    const { records = 0, failed = 0 } = known.get(bucket) ?? {};
    return { at: bucket * milliseconds, records, failed };
  });
}

const sum = (flow, name) => flow.reduce((all, one) => all + one[name], 0);

function chart({ title, unit, left, flow }) {
  const [records, failed] = [sum(flow, "records"), sum(flow, "failed")];
  const most = Math.max(...flow.map((one) => one.records + one.failed));
  const [done, lost] = [`${count(records, "record")} embedded`, failed > 0 && `${number(failed)} failed`];
  const label = `${title}: ${[done, lost].filter(Boolean).join(", ")}; at most ${number(most)} ${unit}`;
  return h(
    "figure",
    { class: "chart" },
    h("figcaption", {}, h("strong", {}, title), h("span", {}, h("span", { class: "key" }, done), lost && h("span", { class: "key failed" }, lost))),
    h(
      "div",
      { class: "plot" },
      h("span", { class: "most quiet", "aria-hidden": "true" }, most > 0 ? `${number(most)} ${unit}` : ""),
      svg(
        "svg",
        { viewBox: `0 0 ${flow.length} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
        flow.map((one, place) => bar(one, place, most)),
      ),
      most === 0 && h("span", { class: "nothing quiet" }, `Nothing was embedded in the ${title.toLowerCase()}.`),
    ),
    h("div", { class: "axis quiet", "aria-hidden": "true" }, h("span", {}, left), h("span", {}, "now")),
  );
}

function bar(one, place, most) {
  const scale = most > 0 ? HEIGHT / most : 0;
  // What is there can be seen, however little it is.
  const tall = (value) => (value > 0 ? Math.max(value * scale, 2) : 0);
  const [records, failed] = [tall(one.records), tall(one.failed)];
  const x = place + 0.12;
  return svg(
    "g",
    {},
    svg("title", {}, `${shortTime(one.at)}: ${number(one.records)} embedded, ${number(one.failed)} failed`),
    svg("rect", { class: "room", x: place, y: 0, width: 1, height: HEIGHT }),
    svg("rect", { class: "done", x, y: HEIGHT - records, width: 0.76, height: records }),
    svg("rect", { class: "failed", x, y: HEIGHT - records - failed, width: 0.76, height: failed }),
  );
}
