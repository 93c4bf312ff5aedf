/* Keeps the page of an open job up to date: asks once a second how far it is, and loads the page
   again, once, when it has ended. Texts come ready from the server and are set as text, never as
   markup. Without this script the page reloads by itself. */
"use strict";

(() => {
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

  // What is to be typed stands between backticks.
  function setWords(element, text) {
    const parts = text.split(/`([^`]+)`/);
    if (element.textContent === parts.join("")) {
      return;
    }
    element.replaceChildren(...parts.map((part, index) => (index % 2 ? codeOf(part) : part)));
  }

  function codeOf(text) {
    const code = document.createElement("code");
    code.textContent = text;
    return code;
  }

  function show(job) {
    for (const element of panel.querySelectorAll("[data-job-text]")) {
      const value = job[element.dataset.jobText];
      const text = value === null || value === undefined ? "" : String(value);
      (element.hasAttribute("data-job-words") ? setWords : setText)(element, text);
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

  walsafePoll({
    url: panel.dataset.job,
    everyMs: 1000,
    trouble,
    show: (job) => {
      show(job);
      if (!job.is_open) {
        location.reload();
      }
      return job.is_open;
    },
    signedOut: () => {
      signedOut.hidden = false;
    },
  });
})();
