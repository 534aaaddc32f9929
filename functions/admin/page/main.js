// Owns the page as a whole: who is signed in, what one answer means for each part.

import * as ask from "./ask.js";
import * as coverage from "./coverage.js";
import { at } from "./element.js";
import * as failures from "./failures.js";
import * as job from "./job.js";
import * as jobs from "./jobs.js";
import * as news from "./news.js";
import * as quarantine from "./quarantine.js";
import * as refresh from "./refresh.js";
import * as session from "./session.js";
import * as stats from "./stats.js";
import * as throughput from "./throughput.js";
import * as workers from "./workers.js";

let throughputSeen;

// None: the figures are the same. What isn't part of them is read again either way.
async function show(monitor) {
  if (monitor) {
    const isAdmin = monitor.role === "admin";
    stats.show(monitor);
    workers.show(monitor);
    coverage.show(monitor, isAdmin);
    failures.show(monitor);
    news.show(monitor);
    jobs.setUpFor(monitor, isAdmin);
    job.setUpFor(isAdmin);
    quarantine.setUpFor(isAdmin);
    throughputSeen = monitor.throughput;
  }
  // Its hour and its day move on, also while nothing happens.
  throughput.show(throughputSeen);
  at("figures").hidden = false;
  await Promise.all([jobs.show(), job.show()]);
}

refresh.setUp(show);
stats.setUp(jobs.filterByStatus);
failures.setUp(jobs.filterByStatus);
jobs.setUp();
job.setUp();
session.begin({
  begun: refresh.start,
  over() {
    refresh.stop();
    // The next one who signs in may see less.
    at("figures").hidden = true;
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
    news.clear();
    ask.forget();
    jobs.forget();
  },
});
