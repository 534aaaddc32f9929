// Owns times and numbers as people read them. The server's clock counts: the browser's may be wrong.

import { h, setText } from "./element.js";

let ahead = 0;

// The server's time that an answer had when it came.
export function setClock(iso) {
  ahead = Date.parse(iso) - Date.now();
}

export const now = () => Date.now() + ahead;

const numbers = new Intl.NumberFormat("en");
const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const short = new Intl.DateTimeFormat("en-GB", { timeStyle: "short" });

// With a minus as wide as a digit.
export const number = (value) => numbers.format(Math.round(value)).replace("-", "−");
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;
export const clockTime = (milliseconds) => clock.format(milliseconds);
export const shortTime = (milliseconds) => short.format(milliseconds);

// "45 s", "12 min", "3 h 5 min", "2 d 4 h".
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${Math.floor(hours / 24)} d`;
}

export function duration(milliseconds) {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return milliseconds < 60_000 ? `${(milliseconds / 1000).toFixed(1)} s` : span(milliseconds / 1000);
}

const FORMS = {
  ago: (seconds) => (seconds < 1 ? "now" : `${span(seconds)} ago`),
  until: (seconds) => (seconds > -1 ? "now" : `in ${span(-seconds)}`),
  next: (seconds) => (seconds > 1 ? `${span(seconds)} overdue` : seconds > -1 ? "now" : `in ${span(-seconds)}`),
  age: (seconds) => span(seconds),
};

function show(element) {
  const seconds = (now() - Date.parse(element.dateTime)) / 1000;
  setText(element, FORMS[element.dataset.form](seconds));
}

// A time that goes on counting.
export function moving(iso, form = "ago") {
  const element = h("time", { datetime: iso, "data-form": form, title: exact.format(Date.parse(iso)) });
  show(element);
  return element;
}

export const exactTime = (iso) => h("time", { datetime: iso }, exact.format(Date.parse(iso)));

export const moveOn = () => document.querySelectorAll("time[data-form]").forEach(show);
