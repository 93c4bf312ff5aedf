"""Every page of the desk as it looks: in light, in the dark, on a phone, for a screen reader, under a strict policy."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.urls import resolve
from playwright.sync_api import Browser, expect

from tests.admin.test_matrix import MATRIX
from tests.browser.chromium import PHONE, person
from tests.console import environment
from tests.jobs.processes import needs_proc
from tests.keys import Key
from tests.site import copy_site
from tests.support import PROJECT, build_shop
from tests.verbs.test_serve import address_of, serving

pytestmark = [needs_proc, pytest.mark.browser, pytest.mark.slow]

CACHE = PROJECT / "tests" / ".cache"

OURS = {
    "overview": "overview/",
    "index": "",
    "databases": "database/",
    "database": "database/{database}/change/",
    "back-up-now": "database/back-up-now/?id={database}",
    "retention": "database/{database}/retention/",
    "prune": "database/{database}/prune/",
    "backups": "backup/",
    "backup": "backup/{backup}/change/",
    "verify": "backup/{backup}/verify/",
    "verify-chosen": "backup/verify-chosen/?id={backup}&level=drill",
    "hold": "backup/{backup}/hold/",
    "hold-chosen": "backup/hold-chosen/?id={backup}",
    "download": "backup/{backup}/download/",
    "manifest": "backup/{backup}/manifest/",
    "delete": "backup/{free}/delete-archive/",
    "delete-refused": "backup/{backup}/delete-archive/",
    "drill-ask": "database/drill/?id={database}",
    "findings": "finding/",
    "finding": "finding/{finding}/change/",
    "hosts": "host/",
    "host": "host/{host}/change/",
    "copies": "copy/",
    "copy": "copy/{copy}/change/",
    "restore-request": "backup/{backup}/restore/",
    "restores": "restore/",
    "restore": "restore/{restore}/change/",
    "restore-approve": "restore/{restore}/approve/",
    "restore-reject": "restore/{restore}/reject/",
    "jobs": "job/",
    "job": "job/{job}/change/",
    "job-waiting": "job/{waiting}/change/",
    "job-cancel": "job/{waiting}/cancel/",
    "verifications": "verification/",
    "drill": "verification/{verification}/change/",
    "drill-report": "verification/{verification}/report/",
    "schedules": "schedule/",
    "schedule": "schedule/{schedule}/change/",
    "scheduled-runs": "scheduledrun/",
    "health": "healthproblem/health/",
    "health-problem": "healthproblem/{problem}/change/",
    "health-problems": "healthproblem/",
    "triage": "triagerun/",
    "triage-start": "triagerun/start/",
    "triage-run": "triagerun/{run}/change/",
    "triage-import": "triagerun/{run}/import/",
    "triage-files": "triagefile/",
    "upload": "triagerun/upload/",
    "upload-run": "triagerun/{upload}/change/",
    "upload-import": "triagerun/{upload}/import/",
    "upload-remove": "triagerun/{upload}/remove-upload/",
    "keys": "recipient/",
    "key": "recipient/{recipient}/change/",
    "key-prove": "recipient/{recipient}/prove/",
    "key-kit": "recipient/kit/",
    "notifications": "notification/",
    "notification-test": "notification/test/",
    "notification": "notification/{notification}/change/",
    "audit": "auditevent/",
    "audit-event": "auditevent/{event}/change/",
    "database-history": "database/{database}/history/",
    "schedule-add": "schedule/add/",
    "schedule-delete": "schedule/{schedule}/delete/",
    "scheduled-run": "scheduledrun/{scheduled}/change/",
    "triage-file": "triagefile/{file}/change/",
    "triage-delete": "triagerun/{run}/delete-useless/",
    "restore-undo": "restore/{restore}/undo/",
}
NOT_LOOKED_AT = re.compile(r"(_history|_json|_jobs|_progress)$")
"""Pages of the stock admin that are alike for each model, and documents for programs."""

OTHER = "a-long-name-that-nobody-would-choose-for-a-database-of-theirs"
STOCK = [
    "/admin/",
    "/admin/auth/user/",
    "/admin/auth/user/add/",
    "/admin/auth/user/1/change/",
    "/admin/password_change/",
]

# What the stock admin of Django 5.2 brings along, and why it is not counted as ours.
STOCK_FAULTS = {
    ".breadcrumbs": "links differ from the text beside them by a shade alone (link-in-text-block)",
}

OF_COLOURS = ["color-contrast", "link-in-text-block"]
"""The rules of axe-core that look at colours."""

_IDS = {name for rest in OURS.values() for name in re.findall(r"{(\w+)}", rest)}


@dataclass(frozen=True)
class Desk:
    """A desk that is served, and the ids of one row of each kind."""

    base: str
    ids: dict[str, Any]

    @property
    def pages(self) -> dict[str, str]:
        """The address of each of our pages by its name."""
        return {name: f"/admin/backups_app/{rest.format(**self.ids)}" for name, rest in OURS.items()}


@pytest.fixture(scope="module")
def desk(site_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk in use. No worker runs, so that a job waits."""
    with desk_in(tmp_path_factory.mktemp("desk"), site_template) as found:
        yield found


@contextmanager
def desk_in(folder: Path, site_template: Path, *, hostile: str = "") -> Iterator[Desk]:
    """A desk in use; with the name of a hostile text, that one stands in every column."""
    key = Key(folder / "key.txt")
    build_shop(folder / "shop.sqlite3")
    console = copy_site(site_template, folder / "home", roots=folder).console
    extra = {
        "BACKUPS_ROOTS": str(folder),
        "BACKUPS_TRIAGE_ROOTS": str(folder),
        "BROWSER_KEY_FILE": str(key.path),
        "BROWSER_RECIPIENTS": key.recipient,
        "DJANGO_SETTINGS_MODULE": "tests.browser.settings",
    }
    ids = json.loads(_ran("tests.browser.stage", environment(console.home, **extra)))
    if hostile:
        _ran("tests.browser.poison", environment(console.home, **extra), hostile, "ben")
    with serving(console.home, "--no-worker", **extra) as heard:
        yield Desk(address_of(heard).partition("/admin")[0], ids)
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=60) == 0, heard.said
    assert "Traceback" not in heard.said


def _ran(module: str, env: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    ran = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def needs_axe() -> str:
    """The source of axe-core, from the npm package. Where continuous integration runs, its absence is a failure."""
    packages = sorted(CACHE.glob("axe-core-4.*.tgz"))
    if not packages:
        missing = "axe-core is missing; run `npm pack axe-core@4` in tests/.cache"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with tarfile.open(packages[-1]) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def test_every_page_that_a_person_can_open_is_looked_at():
    places = Desk("", dict.fromkeys(_IDS, "1")).pages.values()
    looked_at = {resolve(address.partition("?")[0]).url_name for address in places}
    there = {name for name, rule in MATRIX.items() if "S" in rule.get and not NOT_LOOKED_AT.search(name)}
    assert there - looked_at == set()


def test_the_policy_that_is_sent_would_be_noticed(chromium: Browser, desk: Desk):
    with person(chromium, desk.base, "ben") as ben:
        ben.open("/admin/")
        ben.page.evaluate("document.body.setAttribute('style', 'color: red')")
        expect(ben.page.locator("body")).to_be_visible()
        assert "style-src" in str(ben.violations())


def test_every_page_fits_a_phone_and_obeys_a_strict_policy(chromium: Browser, desk: Desk):
    wrong = {}
    with person(chromium, desk.base, viewport=PHONE) as visitor:
        visitor.open("/admin/login/")
        assert visitor.violations() == []
    with person(chromium, desk.base, "ben", viewport=PHONE, has_touch=True, is_mobile=True) as ben:
        for name, address in [*desk.pages.items(), *((each, each) for each in STOCK)]:
            ben.open(address)
            found = ben.violations()
            if address not in STOCK:
                ben.shoot(f"phone-{name}")
                found += ben.scrolls_sideways()
            if found:
                wrong[name] = found
    assert wrong == {}


# A table that has to be scrolled sideways hides what it says last.
_CUT_OFF = (
    "() => [...document.querySelectorAll('#changelist .results')].some(each => each.scrollWidth > each.clientWidth + 1)"
)


def test_every_list_fits_a_window(chromium: Browser, desk: Desk):
    lists = {name: address for name, address in desk.pages.items() if re.fullmatch(r"/admin/\w+/\w+/", address)}
    assert len(lists) > 14
    with person(chromium, desk.base, "ben") as ben:
        cut_off = [name for name, address in lists.items() if ben.open(address).evaluate(_CUT_OFF)]
    assert cut_off == []


def test_no_deed_lies_over_a_long_title(chromium: Browser, desk: Desk):
    with person(chromium, desk.base, "ben") as ben:
        page = ben.open(f"/admin/backups_app/backup/{desk.ids['free']}/change/")
        title, deeds = page.locator("#content > h2").bounding_box(), page.locator(".object-tools").bounding_box()
    assert title is not None
    assert deeds is not None
    assert title["y"] + title["height"] <= deeds["y"]


def test_a_backup_is_asked_for_and_cancelled_by_keys_alone(chromium: Browser, desk: Desk):
    with person(chromium, desk.base, "ben") as ben:
        ben.open(desk.pages["databases"])
        for name in (OTHER, "Back up now", "Back up now", "Cancel job", "Cancel job"):
            ben.tab_to(name)
            assert ben.sees_the_focus(), name
            with ben.page.expect_navigation():
                ben.page.keyboard.press("Enter")
        ben.sees("It was cancelled by ben.")


def test_no_page_has_a_serious_fault_for_those_who_cannot_see_well(chromium: Browser, desk: Desk):
    axe = needs_axe()
    found = {}
    with person(chromium, desk.base, "ben", color_scheme="light", bypass_csp=True) as ben:
        for name, address in desk.pages.items():
            page = ben.open(address)
            page.evaluate(axe)
            # What does not hang on colours is the same in the dark.
            for scheme, rules in (("light", {}), ("dark", {"runOnly": OF_COLOURS})):
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                ben.shoot(f"{scheme}-{name}")
                options = {"resultTypes": ["violations"], **rules}
                answer = page.evaluate(
                    "([exclude, options]) => axe.run({exclude}, options)", [list(STOCK_FAULTS), options]
                )
                serious = [each for each in answer["violations"] if each["impact"] in ("serious", "critical")]
                if serious:
                    found[f"{scheme} {name}"] = [
                        f"{each['id']}: {node['html']}" for each in serious for node in each["nodes"]
                    ]
            page.emulate_media(color_scheme="light")
    assert found == {}


PICTURES = {"overview": "overview", "backup": "backup", "restore-preview": "restore-approve"}
"""The pictures in docs/images and the pages that they show."""

# A picture tells nothing of the machine on which it was made.
_ELSEWHERE = r"""() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    walker.currentNode.data = walker.currentNode.data.replace(/\/\S+\/desk\d*\//g, "/var/lib/walsafe/");
  }
}"""


def test_the_pictures_of_the_documents_can_be_made(chromium: Browser, desk: Desk):
    """``make screenshots`` keeps them."""
    kept = PROJECT / "docs" / "images"
    assert {each.stem for each in kept.glob("*.png")} == set(PICTURES) or os.environ.get("WALSAFE_PICTURES")
    with person(chromium, desk.base, "ben") as ben:
        for name, page in PICTURES.items():
            ben.open(desk.pages[page]).evaluate(_ELSEWHERE)
            picture = ben.shoot(f"document-{name}", is_whole=False)
            assert picture.stat().st_size < 150_000, name
            if os.environ.get("WALSAFE_PICTURES"):
                kept.mkdir(exist_ok=True)
                shutil.copyfile(picture, kept / picture.name.removeprefix("document-"))
