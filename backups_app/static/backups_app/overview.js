/* Keeps the open jobs on the overview up to date: asks every two seconds where they are. Texts come
   ready from the server and are set as text, never as markup. A job that has ended is offered as a
   reason to load the page again; nothing reloads by itself. Without this script the page does. */
"use strict";

(() => {
  const panel = document.querySelector("[data-overview-jobs]");
  if (panel === null) {
    return; // somebody who may not see jobs
  }
  const list = panel.querySelector("[data-overview-list]");
  const pattern = panel.querySelector("template").content.firstElementChild;
  const trouble = panel.querySelector("[data-overview-trouble]");
  const ended = panel.querySelector("[data-overview-ended]");

  function show(row, job) {
    row.querySelector("[data-overview-link]").href = job.page;
    for (const element of row.querySelectorAll("[data-overview-text]")) {
      const text = String(job[element.dataset.overviewText] ?? "");
      if (element.textContent !== text) {
        element.textContent = text;
      }
    }
    row.querySelector("[data-overview-badge]").className = `walsafe-badge walsafe-${job.look}`;
    const progress = row.querySelector("progress");
    progress.hidden = !job.is_running;
    progress.setAttribute("aria-label", `${job.kind} ${job.database}`);
    if (job.percent === null) {
      progress.removeAttribute("value");
    } else {
      progress.value = job.percent;
    }
  }

  function update(jobs) {
    const rows = new Map([...list.children].map((row) => [row.dataset.overviewJob, row]));
    for (const job of jobs) {
      const row = rows.get(job.id) ?? document.importNode(pattern, true);
      rows.delete(job.id);
      row.dataset.overviewJob = job.id;
      show(row, job);
      if (row.parentElement === null) {
        list.append(row);
      }
    }
    for (const row of rows.values()) {
      row.remove();
      ended.hidden = false;
    }
    panel.hidden = list.children.length === 0 && ended.hidden;
  }

  walsafePoll({
    url: panel.dataset.overviewJobs,
    everyMs: 2000,
    trouble,
    show: (answer) => update(answer.jobs),
    signedOut: () => {}, // the next click leads to the login
  });
})();
