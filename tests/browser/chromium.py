"""The Chromium of the system, driven by Playwright; nothing is downloaded, nothing but loopback is asked."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from tests.support import PROJECT

SHOTS = PROJECT / "tests" / "browser" / "shots"
PATIENCE_MS = 30_000
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Runs in each page before anything else of it does.
_LISTEN = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.effectiveDirective}: ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
});
"""


def needs_chromium() -> str:
    """The path of Chromium. Where continuous integration runs, its absence is a failure."""
    found = shutil.which("chromium")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed; continuous integration must have it")
        pytest.skip("chromium is not installed")
    return found


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """A browser without a window; it has ended when the block ends."""
    program = needs_chromium()
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Person:
    """Somebody at a window of their own."""

    base: str
    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list)
    """What the console of the browser said was wrong."""

    def open(self, address: str) -> Page:
        """Open a page of the desk, which must answer."""
        response = self.page.goto(self.base + address)
        assert response is not None
        assert response.status == 200, f"{address}: {response.status}"
        return self.page

    def sign_in(self, name: str) -> None:
        """Fill the login in that is open, as a person does."""
        self.page.get_by_label("Username:").fill(name)
        self.page.get_by_label("Password:").fill(name)
        self.page.get_by_role("button", name="Log in").click()

    def click(self, name: str) -> None:
        """Click the link of this name."""
        self.page.get_by_role("link", name=name, exact=True).first.click()

    def press(self, name: str) -> None:
        """Press the button of this name."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def tab_to(self, name: str) -> None:
        """Press Tab until a link or button of this name has the focus."""
        for _ in range(150):
            self.page.keyboard.press("Tab")
            said = self.page.evaluate("(document.activeElement.value || document.activeElement.textContent).trim()")
            if said == name:
                return
        pytest.fail(f"no Tab leads to {name!r}")

    def sees_the_focus(self) -> bool:
        """Whether the window looks different without the focus."""
        focused = self.page.screenshot()
        self.page.evaluate("window.focused = document.activeElement; window.focused.blur()")
        is_seen = self.page.screenshot() != focused
        self.page.evaluate("window.focused.focus()")
        return is_seen

    def sees(self, *words: str) -> None:
        """Wait until these words stand on the page."""
        for each in words:
            expect(self.page.get_by_text(re.compile(re.escape(each))).filter(visible=True).first).to_be_visible()

    def violations(self) -> list[str]:
        """What the policy forbade to the page that is open, and what the console said of it since the last time."""
        said, self.complaints[:] = list(self.complaints), []
        return [*self.page.evaluate("window.violations"), *said]

    def scrolls_sideways(self) -> list[str]:
        """How wide the page that is open is, when it is wider than a phone."""
        width = self.page.evaluate("document.scrollingElement.scrollWidth")
        return [f"{width} px wide"] if width > PHONE["width"] + 1 else []

    def shoot(self, name: str, *, is_whole: bool = True) -> Path:
        """Keep a picture of the whole page, or of what fits the window."""
        SHOTS.mkdir(exist_ok=True)
        path = SHOTS / f"{name}.png"
        self.page.screenshot(path=path, full_page=is_whole)
        return path


@contextmanager
def person(browser: Browser, base: str, name: str = "", **options: Any) -> Iterator[Person]:
    """Somebody with a window, signed in when a name is given; whatever is not the desk is not asked."""
    context = browser.new_context(**{"viewport": DESKTOP, "service_workers": "block", **options})
    try:
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(_LISTEN)
        context.route(lambda address: not address.startswith(f"{base}/"), _refuse)
        found = Person(base, context, context.new_page())
        found.page.on("console", lambda message: _note(found, message.type, message.text))
        found.page.on("pageerror", lambda error: _note(found, "error", str(error.stack)))
        if name:
            found.open("/admin/login/?next=/admin/")
            found.sign_in(name)
            expect(found.page.get_by_role("button", name="Log out")).to_be_visible()
        yield found
    finally:
        context.close()


def _note(person: Person, kind: str, text: str) -> None:
    if kind == "error":
        person.complaints.append(text)


def _refuse(route: Route) -> None:
    route.abort()
