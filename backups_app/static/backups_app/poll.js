/* Asks the server again and again where something is. While nobody looks at the page it does not ask;
   while the server does not answer it waits longer and longer. Used by the pages of jobs and the overview. */
"use strict";

/* Calls `show` with each answer, a document, until `show` returns false or this person is signed out.
   `trouble` is shown while the server does not answer. */
function walsafePoll({url, everyMs, show, trouble, signedOut}) {
  const LONGEST_PAUSE_MS = 30000;
  const PATIENCE_MS = 10000;

  let pauseMs = everyMs;
  let timer = null;
  let isAsking = false;
  let isOver = false;

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
      const response = await fetch(url, {
        cache: "no-store",
        credentials: "same-origin",
        headers: {Accept: "application/json"},
        redirect: "manual", // to the login
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      if (response.type === "opaqueredirect" || response.status === 403) {
        isOver = true;
        trouble.hidden = true;
        signedOut();
        return;
      }
      if (!response.ok) {
        throw new Error(`status ${response.status}`);
      }
      isOver = show(await response.json()) === false;
      trouble.hidden = true;
      pauseMs = everyMs;
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
}
