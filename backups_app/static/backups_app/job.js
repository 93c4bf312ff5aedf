/* Keeps the page of an open job up to date: asks once a second how far it is, and loads the page
   again, once, when it has ended. Texts come ready from the server and are set as text, never as
   markup. Without this script the page reloads by itself. */
"use strict";

(() => {
  const EVERY_MS = 1000;
  const LONGEST_PAUSE_MS = 30000;
  const PATIENCE_MS = 10000;

  const panel = document.querySelector("[data-job]");
  if (panel === null) {
    return; // the list
  }
  const log = panel.querySelector("pre");
  log.scrollTop = log.scrollHeight;
  if (!panel.hasAttribute("data-job-open")) {
    return;
  }

  const badge = panel.querySelector("[data-job-badge]");
  const bar = panel.querySelector("[data-job-bar]");
  const progress = bar.querySelector("progress");
  const trouble = panel.querySelector("[data-job-trouble]");
  const signedOut = panel.querySelector("[data-job-signed-out]");

  let pauseMs = EVERY_MS;
  let timer = null;
  let isAsking = false;
  let isOver = false;

  function setText(element, text) {
    if (element.textContent === text) {
      return; // what a person has selected stays selected, and nothing is read aloud twice
    }
    const isAtEnd = element.scrollTop + element.clientHeight >= element.scrollHeight - 4;
    element.textContent = text;
    if (isAtEnd) {
      element.scrollTop = element.scrollHeight;
    }
  }

  function show(job) {
    for (const element of panel.querySelectorAll("[data-job-text]")) {
      const value = job[element.dataset.jobText];
      const text = value === null || value === undefined ? "" : String(value);
      setText(element, text);
      const whole = element.tagName === "DD" ? element.parentElement : element;
      whole.hidden = text === "";
    }
    badge.className = `walsafe-badge walsafe-${job.look}`;
    bar.hidden = !job.is_running;
    if (job.percent === null) {
      progress.removeAttribute("value");
    } else {
      progress.value = job.percent;
    }
  }

  function stop() {
    isOver = true;
    clearTimeout(timer);
  }

  function askLater() {
    clearTimeout(timer);
    if (!isOver && !document.hidden) {
      timer = setTimeout(ask, pauseMs);
    }
  }

  async function ask() {
    if (isAsking || isOver) {
      return;
    }
    isAsking = true;
    try {
      const response = await fetch(panel.dataset.job, {
        cache: "no-store",
        credentials: "same-origin",
        headers: {Accept: "application/json"},
        redirect: "manual", // to the login
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      if (response.type === "opaqueredirect" || response.status === 403) {
        signedOut.hidden = false;
        trouble.hidden = true;
        stop();
        return;
      }
      if (!response.ok) {
        throw new Error(`status ${response.status}`);
      }
      const job = await response.json();
      show(job);
      trouble.hidden = true;
      pauseMs = EVERY_MS;
      if (!job.is_open) {
        stop();
        location.reload();
      }
    } catch {
      trouble.hidden = false;
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    } finally {
      isAsking = false;
      askLater();
    }
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(timer);
    } else {
      ask();
    }
  });
  askLater();
})();
