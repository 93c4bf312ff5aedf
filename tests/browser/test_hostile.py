"""Hostile text in a real browser: nothing of it runs, and no page breaks on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import PHONE, person
from tests.browser.test_pages import desk_in
from tests.jobs.processes import needs_proc

pytestmark = [needs_proc, pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("kind", ["script", "long"])  # both turn the direction of the text as well
def test_no_hostile_text_runs_or_breaks_a_page(chromium: Browser, site_template: Path, tmp_path: Path, kind: str):
    wrong, dialogs = {}, []
    with (
        desk_in(tmp_path, site_template, hostile=kind) as desk,
        person(chromium, desk.base, "ben", viewport=PHONE, has_touch=True, is_mobile=True) as ben,
    ):
        ben.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        for name, address in desk.pages.items():
            page = ben.open(address)
            ben.shoot(f"hostile-{kind.replace(' ', '-')}-{name}")
            found = ben.violations()
            if page.evaluate("window.pwned"):
                found.append("a script ran")
            found += ben.scrolls_sideways()
            if found:
                wrong[name] = found
    assert wrong == {}
    assert dialogs == []
