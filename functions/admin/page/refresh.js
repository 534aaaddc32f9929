// Owns when the figures are read, and what is said about their age. Nobody takes old figures for new ones.

import { call } from "./api.js";
import { at, setText } from "./element.js";
import { clockTime, moveOn, setClock, span } from "./time.js";

const EVERY_MS = 5000;
// Three refreshes that didn't come.
const STALE_MS = 15_000;

let show = () => {};
let timer;
let etag;
let readAt;
let trouble;
let isHeld = false;
let isOn = false;
let round = 0;

export function setUp(callback) {
  show = callback;
  at("hold").addEventListener("click", () => hold(!isHeld));
  document.addEventListener("visibilitychange", () => !document.hidden && isOn && !isHeld && look());
  setInterval(second, 1000);
}

export function start() {
  if (isOn) return;
  isOn = true;
  [etag, readAt, trouble] = [undefined, undefined, undefined];
  at("hold").hidden = at("state").hidden = false;
  at("loading").hidden = false;
  hold(false);
}

export function stop() {
  isOn = false;
  round += 1;
  clearTimeout(timer);
  at("hold").hidden = at("state").hidden = true;
  at("loading").hidden = true;
}

function hold(value) {
  isHeld = value;
  at("hold").setAttribute("aria-pressed", String(value));
  setText(at("hold"), value ? "Go on" : "Hold");
  if (value) {
    // Also what was asked for already stays unseen.
    clearTimeout(timer);
    round += 1;
  } else look();
  second();
}

// Reads the figures now: also after an act, so that what was done is seen.
export async function look() {
  clearTimeout(timer);
  const mine = (round += 1);
  const isCurrent = () => isOn && round === mine;
  try {
    const { answer, etag: tag, unchanged } = await call(
      "GET",
      "api/admin/monitor",
      undefined,
      etag ? { "if-none-match": etag } : {},
    );
    if (!isCurrent()) return;
    if (!unchanged) {
      etag = tag;
      setClock(answer.at);
    }
    [readAt, trouble] = [Date.now(), undefined];
    await show(answer);
  } catch (failure) {
    if (!isCurrent()) return;
    trouble = failure;
    // A fault of the page itself belongs into the console as well.
    if (failure.status === undefined) console.error(failure);
  }
  if (!isCurrent()) return;
  at("loading").hidden = true;
  second();
  // A window that nobody sees asks for nothing; it looks again when it is seen.
  if (!isHeld) timer = setTimeout(() => !document.hidden && look(), EVERY_MS);
}

function second() {
  if (!isOn) return;
  const old = readAt === undefined ? Infinity : Date.now() - readAt;
  const isStale = isHeld || trouble !== undefined || old > STALE_MS;
  const kind = trouble ? "lost" : isHeld ? "held" : isStale ? "old" : "live";
  at("state").dataset.kind = kind;
  setText(at("state-text"), said(kind));
  at("figures").classList.toggle("stale", isStale);
  if (!isStale) moveOn();
}

const asOf = () => (readAt === undefined ? "" : `as of ${clockTime(readAt)}`);

function said(kind) {
  if (kind === "lost") {
    const why = trouble.status === 0 ? "No contact" : "The figures can’t be read";
    const last = readAt === undefined ? "nothing was read yet" : `these are ${asOf()}`;
    return `${why}: ${trouble.message}; ${last}. It is tried again every ${span(EVERY_MS / 1000)}.`;
  }
  if (kind === "held") return `Held, ${asOf()}`;
  if (kind === "old") return readAt === undefined ? "Reading…" : `Old, ${asOf()}`;
  return `Live, ${asOf()}`;
}

