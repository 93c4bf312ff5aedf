"""The console as visitors meet it: a real server process, and browsers with cookies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPMessage
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, OpenerDirector, ProxyHandler, build_opener

from tests.admin.markup import Page
from tests.console import environment
from tests.support import PROJECT

PASSWORD = "correct horse battery"

_PREPARE = f"""
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("migrate", database="catalog", verbosity=0)
for name in ("anna", "ben"):
    User.objects.create_superuser(name, password={PASSWORD!r})
"""

_SERVE = """
from project.wsgi import application
from waitress.server import create_server
server = create_server(application, host="127.0.0.1", port=0, threads=4)
print(server.effective_port, flush=True)
server.run()
"""


# What a worker does with the restores that were approved and asked for, in a process of its own.
_WORK = """
import django
django.setup()
from backups_app.models import Job
from backups_app.services.audit import Actor
from backups_app.services.restores import run_restore
from django.utils import timezone
for job in Job.objects.filter(kind="restore", state="queued"):
    ended = run_restore(job.restore, actor=Actor(id=job.requested_by_id, name=job.requested_by_name))
    assert ended.state == "succeeded", ended.outcome
    job.state, job.finished_at = "succeeded", timezone.now()
    job.save()
"""


def site_environment(home: Path, *, settings: str = "") -> dict[str, str]:
    """The environment of a site in ``home`` with some more lines of settings."""
    lines = "from project.settings import *\nPASSWORD_HASHERS = ['django.contrib.auth.hashers.MD5PasswordHasher']\n"
    (home.parent / "site_settings.py").write_text(f"{lines}{settings}\n")
    path = f"{home.parent}:{PROJECT}"
    return environment(home, DJANGO_SETTINGS_MODULE="site_settings", PYTHONPATH=path)


def prepare_site(home: Path) -> None:
    """Make the site: its tables, and the superusers anna and ben."""
    subprocess.run([sys.executable, "-c", _PREPARE], env=site_environment(home), cwd=PROJECT, check=True, timeout=120)


def work(home: Path) -> None:
    """Run the restores that were asked for, as a worker does, beside the server."""
    subprocess.run([sys.executable, "-c", _WORK], env=site_environment(home), cwd=PROJECT, check=True, timeout=120)


class _Stay(HTTPRedirectHandler):
    """A redirect is an answer, too."""

    def redirect_request(self, *_arguments: object, **_options: object) -> None:
        """Go nowhere."""


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: HTTPMessage
    source: str

    @property
    def page(self) -> Page:
        """The page."""
        return Page(self.source)

    @property
    def location(self) -> str:
        """Where it leads."""
        return self.headers.get("Location", "")


@dataclass
class Browser:
    """Somebody's browser."""

    base: str
    cookies: CookieJar = field(default_factory=CookieJar)

    def _opener(self) -> OpenerDirector:
        return build_opener(ProxyHandler({}), _Stay(), HTTPCookieProcessor(self.cookies))

    def _open(self, address: str, data: bytes | None = None) -> Answer:
        try:
            with self._opener().open(self.base + address, data, timeout=60) as response:
                return Answer(response.status, response.headers, response.read().decode())
        except HTTPError as exc:
            with exc:
                return Answer(exc.code, exc.headers, exc.read().decode())

    def cookie(self, name: str) -> str:
        """The value of a cookie; empty when there is none."""
        return next((each.value or "" for each in self.cookies if each.name == name), "")

    def get(self, address: str) -> Answer:
        """Open a page."""
        return self._open(address)

    def post(self, address: str, **fields: object) -> Answer:
        """Send a form."""
        return self._open(address, urlencode({**fields, "csrfmiddlewaretoken": self.cookie("csrftoken")}).encode())

    def sign_in(self, name: str) -> Browser:
        """Sign in at the real address."""
        self.get("/admin/login/")
        answer = self.post("/admin/login/", username=name, password=PASSWORD, next="/admin/")
        assert (answer.status, answer.location) == (302, "/admin/"), answer.page.errors
        return self


@dataclass
class Site:
    """A site that is served."""

    base: str

    def browser(self, name: str = "") -> Browser:
        """A new browser, signed in when a name is given."""
        browser = Browser(self.base)
        return browser.sign_in(name) if name else browser


@contextmanager
def served(home: Path, *, settings: str = "") -> Iterator[Site]:
    """A server process; it is dead when the block ends, and its log holds no traceback."""
    log = home.parent / "server.log"
    with open(log, "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            env=site_environment(home, settings=settings),
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().decode().strip()
        assert port, log.read_text()
        yield Site(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert "Traceback" not in log.read_text(), log.read_text()
