"""Restores of the site's own database from the admin of that site: a real server, and a worker beside it."""

from __future__ import annotations

import re
import shutil
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.admin.server import PASSWORD, Answer, Browser, Site, prepare_site, served, work
from tests.console import Console
from tests.support import integrity_of

SETTINGS = {
    "sessions in the database": "",
    "saved with every request": "SESSION_SAVE_EVERY_REQUEST = True",
    "messages in the session": "MESSAGE_STORAGE = 'django.contrib.messages.storage.session.SessionStorage'",
    "transaction per request": "DATABASES['default']['ATOMIC_REQUESTS'] = True",
    "a cookie of another name": "SESSION_COOKIE_NAME = 'other'",
}
CACHED = "SESSION_ENGINE = 'django.contrib.sessions.backends.cached_db'"
SIGNED = "SESSION_ENGINE = 'django.contrib.sessions.backends.signed_cookies'"
JOB_PAGE = "/admin/backups_app/job/[0-9a-f]{12}/change/"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with two superusers; copied, because making it takes seconds."""
    home = tmp_path_factory.mktemp("site") / "home"
    home.mkdir()
    prepare_site(home)
    return home


@pytest.fixture
def site_home(template: Path, tmp_path: Path) -> Path:
    """A site of its own."""
    return Path(shutil.copytree(template, tmp_path / "home"))


@dataclass
class Desk:
    """The site as the two people work with it."""

    home: Path
    site: Site

    @property
    def live(self) -> Path:
        """The database of the site."""
        return self.home / "site.sqlite3"

    def change(self, statement: str) -> None:
        """Another process changes the live database."""
        with closing(sqlite3.connect(self.live, timeout=10, isolation_level=None)) as connection:
            connection.execute(statement)

    def notes(self) -> list[str]:
        """The content, read by another process."""
        with closing(sqlite3.connect(self.live, timeout=10)) as connection:
            return [row[0] for row in connection.execute("SELECT text FROM note ORDER BY text")]

    def back_up(self) -> str:
        """A verified backup; returns its id."""
        return str(Console(self.home).ok("create", "default", "--json").backup()["id"])

    def request(self, browser: Browser, backup: str) -> str:
        """A request; returns its address."""
        answer = browser.post(f"/admin/backups_app/backup/{backup}/restore/", database=1, reason="it went wrong")
        assert answer.status == 302, answer.page.errors
        return answer.location

    def approve(self, browser: Browser, page: str) -> Answer:
        """Approve with the password."""
        return browser.post(page.replace("/change/", "/approve/"), password=PASSWORD)

    def restore(self, browser: Browser, page: str) -> str:
        """Approve, and let a worker run it; returns the address of the job."""
        answer = self.approve(browser, page)
        assert answer.status == 302, answer.source[:2000]
        assert re.fullmatch(JOB_PAGE, answer.location), answer.location
        work(self.home)
        return answer.location


def open_desk(home: Path, site: Site) -> Desk:
    desk = Desk(home, site)
    desk.change("CREATE TABLE note (text TEXT)")
    desk.change("INSERT INTO note VALUES ('first')")
    return desk


def require_signed_out(browser: Browser, address: str) -> None:
    """The page asks to sign in and knows where to go on; the script on it is told the same."""
    for each in (address, address.replace("/change/", "/progress.json")):
        answer = browser.get(each)
        assert (answer.status, answer.location) == (302, f"/admin/login/?next={each}")


@pytest.mark.parametrize("kind", SETTINGS)
def test_when_the_session_is_not_in_the_backup_one_signs_in_again_and_reads_how_it_ended(site_home: Path, kind: str):
    with served(site_home, settings=SETTINGS[kind]) as site:
        desk = open_desk(site_home, site)
        anna = site.browser("anna")
        backup = desk.back_up()
        ben = site.browser("ben")
        desk.change("INSERT INTO note VALUES ('second')")
        page = desk.request(anna, backup)
        job = desk.restore(ben, page)
        assert desk.notes() == ["first"]
        require_signed_out(ben, job)
        assert anna.get(page).page.badges[0] == "✓ succeeded", "her session is in the backup"
        assert ben.sign_in("ben").get(job).page.badges[0] == "✓ succeeded"


def test_a_session_that_is_still_in_the_cache_goes_on(site_home: Path):
    with served(site_home, settings=CACHED) as site:
        desk = open_desk(site_home, site)
        anna = site.browser("anna")
        backup = desk.back_up()
        ben = site.browser("ben")
        job = desk.restore(ben, desk.request(anna, backup))
        assert ben.get(job).page.badges[0] == "✓ succeeded"


def test_when_the_account_is_not_in_the_backup_signed_cookies_end_too(site_home: Path):
    with served(site_home, settings=f"{SIGNED}\nSESSION_SAVE_EVERY_REQUEST = True") as site:
        desk = open_desk(site_home, site)
        anna = site.browser("anna")
        desk.change("UPDATE auth_user SET username = 'benjamin', is_active = 0 WHERE username = 'ben'")
        backup = desk.back_up()
        desk.change("UPDATE auth_user SET username = 'ben', is_active = 1 WHERE username = 'benjamin'")
        ben = site.browser("ben")
        require_signed_out(ben, desk.restore(ben, desk.request(anna, backup)))


@pytest.mark.parametrize("settings", ["", "SESSION_SAVE_EVERY_REQUEST = True", SIGNED])
def test_when_the_session_is_in_the_backup_the_page_of_the_job_says_so(site_home: Path, settings: str):
    with served(site_home, settings=settings) as site:
        desk = open_desk(site_home, site)
        anna, ben = site.browser("anna"), site.browser("ben")
        page = desk.request(anna, desk.back_up())
        desk.change("INSERT INTO note VALUES ('second')")
        job = desk.restore(ben, page)
        assert ben.get(job).page.badges[0] == "✓ succeeded"
        shown = ben.get(page).page
        assert shown.badges[0] == "✓ succeeded"
        assert desk.notes() == ["first"]
        assert "Undo this restore" in shown.buttons


def test_undo_brings_the_content_back_while_others_stay_connected(site_home: Path):
    with served(site_home) as site:
        desk = open_desk(site_home, site)
        anna = site.browser("anna")
        backup = desk.back_up()
        desk.change("INSERT INTO note VALUES ('second')")
        ben = site.browser("ben")
        page = desk.request(anna, backup)
        with closing(sqlite3.connect(desk.live, timeout=10, isolation_level=None)) as other:
            assert other.execute("SELECT count(*) FROM note").fetchone() == (2,)
            desk.restore(ben, page)
            assert other.execute("SELECT count(*) FROM note").fetchone() == (1,)
            other.execute("INSERT INTO note VALUES ('third')")
            ben.sign_in("ben")
            answer = ben.post(page.replace("/change/", "/undo/"), password=PASSWORD)
            assert re.fullmatch(JOB_PAGE, answer.location), answer.source[:2000]
            work(site_home)
            require_signed_out(ben, answer.location)  # this session began after the restore
            assert desk.notes() == ["first", "second"]
            assert other.execute("SELECT count(*) FROM note").fetchone() == (2,)
        kept = anna.get("/admin/backups_app/backup/?trigger__exact=safety").page
        assert kept.badges.count("✓ verified") == 2, "what was written in between is kept, too"
    assert integrity_of(desk.live) == "ok"


def test_of_two_approvals_at_the_same_time_one_asks(site_home: Path):
    with served(site_home) as site:
        desk = open_desk(site_home, site)
        anna = site.browser("anna")
        page = desk.request(anna, desk.back_up())
        desk.change("INSERT INTO note VALUES ('second')")
        twins = [Browser(site.base).sign_in("ben") for _ in range(2)]
        answers: list[Answer] = []

        def approve(twin: Browser) -> None:
            answers.append(desk.approve(twin, page))

        threads = [threading.Thread(target=approve, args=(each,)) for each in twins]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert [each.status for each in answers] == [302, 302]
        jobs = anna.get("/admin/backups_app/job/?kind__exact=restore").page
        assert jobs.badges == ["○ queued"]
        assert desk.notes() == ["first", "second"], "nothing ran in the server"
        work(site_home)
        assert desk.notes() == ["first"]


def test_content_from_before_there_were_sessions_can_be_undone(site_home: Path):
    with served(site_home) as site:
        desk = open_desk(site_home, site)
        console = Console(site_home)
        anna, ben = site.browser("anna"), site.browser("ben")
        desk.change("ALTER TABLE django_session RENAME TO not_yet")
        backup = console.ok("create", "default", "--json").backup()["id"]
        desk.change("ALTER TABLE not_yet RENAME TO django_session")
        page = desk.request(anna, backup)
        desk.restore(ben, page)
        assert Browser(site.base).get("/admin/login/").status == 200
        console.ok("undo", page.split("/")[-3], "--user", "anna", "--yes")
        assert anna.get(page).page.badges[0] == "✓ succeeded", "her session is back"
