// Owns the projects: how much of each is embedded, what stands aside, and whether workers may take its jobs.

import { ask } from "./ask.js";
import { post } from "./api.js";
import { at, foreign, h, keep, rows, setText, svg } from "./element.js";
import * as quarantine from "./quarantine.js";
import { count, number, span } from "./time.js";

export function show({ coverage, coverageLeftOut, backfills, paused, projects }, isAdmin) {
  const known = new Set(coverage.map(({ project }) => project));
  // A new project may not have been counted yet.
  const uncounted = paused.projects.filter((project) => !known.has(project)).map((project) => ({ project }));
  const items = [...coverage, ...uncounted].map((item) => ({
    ...item,
    countedAt: undefined,
    backfill: backfills.find(({ project }) => project === item.project),
    isPaused: paused.projects.includes(item.project),
    isAdmin,
  }));
  rows(
    at("coverage"),
    items,
    ({ project }) => project,
    row,
    "No project yet. Make one: cronvec projects create NAME. Then: cronvec ingest FILE --project NAME.",
  );
  const left = coverageLeftOut - uncounted.length;
  at("coverage-left-out").hidden = left <= 0;
  setText(at("coverage-left-out"), left > 0 ? `${count(left, "more project")} ${left === 1 ? "isn’t" : "aren’t"} shown: cronvec coverage lists all.` : "");
  const acts = isAdmin && items.length > 0 ? [{ paused: paused.all, isSome: paused.projects.length > 0, projects }] : [];
  keep(at("pause-all"), acts, () => "all", everything);
}

function row(item) {
  return h(
    "li",
    { class: "row cover" },
    h(
      "div",
      { class: "row-head" },
      foreign(item.project, { class: "wrap strong" }),
      item.isPaused && h("span", { class: "badge pending" }, "paused"),
      item.isAdmin && pauseButton(item),
    ),
    item.total !== undefined && [bar(item), h("div", { class: "row-text" }, told(item), aside(item)), item.backfill && h("div", { class: "row-text quiet" }, driven(item.backfill))],
  );
}

function told({ embedded, total, percent, pending, etaSeconds, perSecond, blocked, isPaused }) {
  if (total === 0) return "No records yet";
  const left = pending === 0 ? "" : `, ${number(pending)} pending`;
  const pace = perSecond === null ? "" : `, ${perSecond < 10 ? perSecond : number(perSecond)} a second`;
  const when = blocked ? `, nothing moves: ${blocked}` : etaSeconds === null ? ", no pace to tell an end from" : `${pace}, about ${span(etaSeconds)} left`;
  return `${percent.toFixed(percent < 100 ? 1 : 0)} % – ${number(embedded)} of ${number(total)}${left}${pending === 0 || isPaused ? "" : when}`;
}

function driven({ operation, iteration, iterations }) {
  if (iteration === null) return `Backfill ${operation}: the schedule embeds what it marked.`;
  return `Backfill ${operation}: iteration ${number(iteration)}${iterations === null ? "" : ` of ${number(iterations)}`}.`;
}

function bar({ project, total, embedded, pending, quarantined, percent }) {
  const share = (value) => (total > 0 ? Math.min(100, (100 * value) / total) : 0);
  const [done, aside] = [share(embedded), share(quarantined)];
  return svg(
    "svg",
    {
      class: "cover-bar",
      role: "img",
      "aria-label": `${project}: ${percent} % embedded, ${pending} pending, ${quarantined} set aside`,
    },
    svg("rect", { class: "room", width: "100%", height: "100%" }),
    svg("rect", { class: "done", width: `${done}%`, height: "100%" }),
    svg("rect", { class: "failed", x: `${Math.min(done, 100 - aside)}%`, width: `${aside}%`, height: "100%" }),
  );
}

function aside({ project, quarantined }) {
  if (quarantined === 0) return undefined;
  const open = () => quarantine.open(project);
  return h("button", { type: "button", class: "link", "data-key": `aside-${project}`, onclick: open }, `${number(quarantined)} set aside`);
}

function pauseButton({ project, isPaused }) {
  const title = isPaused ? "Resume" : "Pause";
  return h(
    "button",
    { type: "button", class: "small", "data-key": `pause-${project}`, "aria-label": `${title} ${project}`, onclick: () => set(project, !isPaused) },
    title,
  );
}

function everything({ paused, isSome, projects }) {
  const what = projects ? "all of your projects" : "everything";
  const button = (pause, title) =>
    h("button", { type: "button", class: "small", "data-key": title, onclick: () => set(undefined, pause, what) }, title);
  return h("div", { class: "acts" }, !paused && button(true, "Pause all"), isSome && button(false, "Resume all"));
}

function set(project, isPause, what = `the project ${project}`) {
  return ask({
    title: isPause ? `Pause ${what}?` : `Resume ${what}?`,
    text: isPause
      ? "Workers take no more of its jobs. What one holds it finishes or hands back; writes go on, and nothing is lost."
      : "Workers take its jobs again at the next tick.",
    yes: isPause ? "Pause" : "Resume",
    act: async () => {
      const { projects } = await post(`api/admin/${isPause ? "pause" : "resume"}`, project ? { project } : {});
      return `${count(projects.length, "project")} ${isPause ? "paused" : "resumed"}.`;
    },
  });
}
