"""A newcomer's walk through a real desk, web server and worker: what is asserted is what a person reads."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chromium import Person, person
from tests.console import wait_until
from tests.jobs.processes import needs_proc
from tests.site import Site, copy_site, fill
from tests.verbs.test_serve import address_of, running, serving

pytestmark = [needs_proc, pytest.mark.browser, pytest.mark.slow]

SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.browser.settings"}
SIZE_BYTES = 320 << 20  # a few seconds of work: the page asks once a second


@pytest.fixture
def desk(site_template: Path, tmp_path: Path) -> Iterator[tuple[str, Site]]:
    """The address of a desk that nobody has used, and its site, whose backup takes a moment."""
    site = copy_site(site_template, tmp_path / "home", roots=tmp_path)
    site.console.ok("databases")  # the paths of the template move to this home
    fill(site.console, SIZE_BYTES)
    with serving(site.console.home, **site.console.extra, **SETTINGS) as heard:
        wait_until(lambda: len(running(site.console.home, "jobs.worker")) == 6)
        yield address_of(heard).partition("/admin")[0], site
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=60) == 0, heard.said
    assert "Traceback" not in heard.said


def _ends_well(who: Person) -> None:
    """Watch the page of a job until it says that it succeeded."""
    progress = who.page.get_by_role("region", name="Progress")
    expect(progress).to_be_visible()
    expect(progress.get_by_text("succeeded", exact=True)).to_be_visible(timeout=60_000)


def _ends_well_after_signing_in_again(who: Person, name: str) -> None:
    """The exchange takes the session along: the page says so, and leads to the login and back."""
    expect(who.page.get_by_text("You are signed out")).to_be_visible(timeout=60_000)
    who.click("Log in")
    who.sign_in(name)
    _ends_well(who)


def test_a_newcomer_backs_up_verifies_restores_with_a_second_person_and_undoes(
    chromium: Browser, desk: tuple[str, Site]
):
    base, site = desk
    with person(chromium, base) as anna, person(chromium, base) as ben:
        anna.open("/")
        anna.sign_in("anna")
        anna.click("Backups overview")
        anna.sees("Next steps")

        anna.click("Back up now")
        anna.press("Back up now")
        # A fast machine may be done before the page has asked twice.
        ended = anna.page.get_by_text("succeeded", exact=True)
        expect(anna.page.get_by_role("progressbar").or_(ended).first).to_be_visible()
        _ends_well(anna)
        backup = anna.page.locator(".field-made a").first
        expect(backup.locator("xpath=..")).to_contain_text("verified")
        backup.click()
        made = anna.page.url.removeprefix(base)

        anna.click("Verify")
        anna.press("Verify")
        _ends_well(anna)
        anna.click("Backups overview")
        anna.sees("Everything under care was verified")

        site.execute("UPDATE counter SET value = 7")
        anna.open(made)
        anna.click("Request restore")
        anna.page.get_by_label("Reason").fill("The counter was wrong.")
        anna.press("Preview and request")
        anna.sees("Waits for the approval of another person", "counter")

        ben.open("/")
        ben.sign_in("ben")
        ben.click("Restores")
        ben.page.locator("#result_list tbody th a").first.click()
        ben.sees("The counter was wrong.")
        ben.click("Approve and restore")
        ben.page.get_by_label("Your password").fill("ben")
        ben.press("Approve and restore")
        _ends_well_after_signing_in_again(ben, "ben")
        assert site.execute("SELECT value FROM counter") == [(0,)]

        anna.page.reload()
        anna.sees("The live database holds the content of the backup")
        anna.click("Undo this restore")
        anna.page.get_by_label("Your password").fill("anna")
        anna.press("Undo this restore")
        _ends_well(anna)
        assert site.execute("SELECT value FROM counter") == [(7,)]
        assert anna.violations() == []
