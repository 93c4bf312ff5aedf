"""Secrets are planted wherever one can come in; then everything is made to fail, and nothing may show one."""

from __future__ import annotations

import base64
import json
import re
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.console import Console, environment
from tests.keys import Key, wrapped
from tests.site import Site, copy_site, django_program
from tests.support import PROJECT
from tests.verbs.test_serve import some_port

pytestmark = pytest.mark.slow

_PAGES = """
import os
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
password, password_wrong = os.environ["PLANTED_PASSWORD"], os.environ["PLANTED_WRONG"]
anna = User.objects.get(username="anna")
anna.set_password(password)
anna.save()
token_header = {"Authorization": "Bearer " + password_wrong}
client = Client(raise_request_exception=False, SERVER_NAME="localhost", headers=token_header)
said = []
def keep(answer):
    said.append(f"{answer.status_code} {dict(answer.headers)}")
    said.append(b"".join(answer.streaming_content if answer.streaming else [answer.content]).decode(errors="replace"))
keep(client.post("/admin/login/", {"username": "anna", "password": password_wrong}))
keep(client.get("/metrics"))
keep(client.post("/admin/login/?next=/admin/", {"username": "anna", "password": password}))
base = "/admin/backups_app/"
for page in ("overview/", "backup/", "job/", "notification/", "recipient/", "recipient/kit/", "auditevent/",
             "database/health/", "restore/", "verification/", "schedule/", "triagerun/", "notification/test/"):
    keep(client.get(base + page))
from backups_app.models import Backup, Job, Notification, Restore
for model in (Backup, Job, Notification, Restore):
    for row in model.objects.all()[:6]:
        keep(client.get(f"{base}{model._meta.model_name}/{row.pk}/change/"))
for restore in Restore.objects.all():
    keep(client.post(f"{base}restore/{restore.pk}/approve/", {"password": password_wrong}))
    keep(client.post(f"{base}restore/{restore.pk}/undo/", {"password": password_wrong}))
keep(client.post(base + "notification/test/", {}))
from django.db import connections
connections["catalog"].settings_dict["NAME"] = "/nowhere/catalog"
connections["catalog"].close()
keep(client.get(base + "backup/"))
try:
    raise RuntimeError("planted")
except RuntimeError as exc:
    import sys
    from django.test import RequestFactory
    from django.views.debug import get_exception_reporter_class, get_exception_reporter_filter
    request = RequestFactory().post("/", {"password": password_wrong})
    keep_text = get_exception_reporter_class(request)(request, *sys.exc_info(), is_email=True).get_traceback_text()
    said.append(keep_text)
print("\\n".join(said))
"""


_VERBS = """
import traceback
from django.core.management import call_command
for verb in json.load(sys.stdin):
    try:
        call_command("backup", *verb, "-v", "3", "--traceback")
        ended = 0
    except SystemExit as exc:
        ended = exc.code
    except BaseException as exc:
        ended = type(exc).__name__
        traceback.print_exc()
        for each in traceback.TracebackException.from_exception(exc).format():
            print(each)
    print("\\nENDED", ended, flush=True)
"""


def loud_program(console: Console, program: str) -> list[str]:
    """Run ``program`` with the loud settings."""
    return [each.replace("project.settings", "tests.security.loud") for each in django_program(console, program)]


@dataclass
class Planted:
    """A site that is full of secrets, and everything that it has said."""

    site: Site
    secrets: dict[str, str]
    said: list[str] = field(default_factory=list)

    def run(self, *verbs: tuple[object, ...], **extra: str) -> list[str]:
        """Run verbs in one process, as loud as they can be; returns how each ended, which does not matter here."""
        console = self.site.console
        finished = subprocess.run(
            loud_program(console, _VERBS),
            input=json.dumps([[str(each) for each in verb] for verb in verbs]),
            env=environment(console.home, **{**console.extra, **extra}),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        self.said.append(finished.stdout + finished.stderr)
        return re.findall(r"^ENDED (\S+)", finished.stdout, re.MULTILINE)


@pytest.fixture
def planted(site_template: Path, tmp_path: Path) -> Planted:
    token = {
        name: f"planted-{name}-{secrets.token_hex(12)}"
        for name in ("hook", "pulse", "smtp", "metrics", "redis", "catalog")
    }
    token |= {
        name: f"{name}{secrets.token_hex(30)}"
        for name in ("django", "password", "wrong", "phrase", "query", "s3id", "s3key")
    }
    key = Key(tmp_path / "key.txt")
    locked = wrapped(key, tmp_path / "locked.age", passphrase=token["phrase"])
    log = tmp_path / "loud.log"
    extra = {
        "DJANGO_SETTINGS_MODULE": "tests.security.loud",
        "LOUD_LOG": str(log),
        "DJANGO_SECRET_KEY": token["django"],
        "DJANGO_EMAIL_HOST": "127.0.0.1",
        "DJANGO_EMAIL_PORT": str(some_port()),
        "DJANGO_EMAIL_HOST_USER": "ops",
        "DJANGO_EMAIL_HOST_PASSWORD": token["smtp"],
        "BACKUPS_NOTIFY_EMAILS": "ops@example.org",
        "BACKUPS_WEBHOOK_URLS": f"http://u:{token['hook']}@127.0.0.1:{some_port()}/{token['hook']}?q={token['query']}",
        "BACKUPS_HEARTBEAT_URL": f"http://127.0.0.1:{some_port()}/{token['pulse']}",
        "BACKUPS_METRICS_TOKEN": token["metrics"],
        "BACKUPS_REDIS_URL": f"redis://:{token['redis']}@127.0.0.1:{some_port()}/0",
        "BACKUPS_DESTINATIONS": "local,s3",
        "BACKUPS_S3_BUCKET": "backups",
        "BACKUPS_S3_ENDPOINT_URL": f"http://127.0.0.1:{some_port()}",
        "BACKUPS_S3_REGION": "us-east-1",
        "BACKUPS_S3_ACCESS_KEY_ID": token["s3id"],
        "BACKUPS_S3_SECRET_ACCESS_KEY": token["s3key"],
        "BACKUPS_AGE_RECIPIENTS": key.recipient,
        "BACKUPS_AGE_IDENTITY_FILE": str(locked),
        "BACKUPS_AGE_PASSPHRASE": token["phrase"],
        "PLANTED_PASSWORD": token["password"],
        "PLANTED_WRONG": token["wrong"],
    }
    home = copy_site(site_template, tmp_path / "home", roots=tmp_path).console.home
    site = Site(Console(home, {"BACKUPS_ROOTS": str(tmp_path), **extra}))
    return Planted(site, {**token, "age": key.secret, "age-small": key.secret.lower()})


@pytest.mark.timeout(900)  # twenty processes, one after the other
def test_no_secret_is_shown_whatever_fails(planted: Planted, tmp_path: Path):
    home = planted.site.console.home
    assert planted.run(("create", "default"), ("verify", "--all")) == ["0", "0"], "the protected identity is used"
    backup = planted.site.console.query("SELECT id FROM backups_app_backup")[0][0]
    drive_to_failure(planted, backup, tmp_path)
    pages = subprocess.run(
        loud_program(planted.site.console, _PAGES),
        cwd=PROJECT,
        env=environment(home, **planted.site.console.extra),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert pages.returncode == 0, pages.stderr
    assert pages.stdout.count("200 {") >= 15
    assert "500 {" in pages.stdout or "503 {" in pages.stdout
    assert "planted" in pages.stdout
    shown = {"verbs": "\n".join(planted.said), "pages": pages.stdout + pages.stderr}
    shown["log"] = (tmp_path / "loud.log").read_text()
    assert "DEBUG = True" not in shown["pages"]
    assert len(shown["log"]) > 1_000, "it is loud"
    assert leaks(planted.secrets, {name: text.encode() for name, text in shown.items()}) == []
    files = {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert leaks(planted.secrets, files) == []
    only_in_its_file(files, "state/signing.key")


def drive_to_failure(planted: Planted, backup: str, folder: Path) -> None:
    """Every verb, most of them in vain."""
    stranger = Key(folder / "stranger.txt")
    broken = folder / "broken.txt"
    broken.write_text(stranger.secret.replace("1", "l"))
    planted.secrets |= {"stranger": stranger.secret, "broken": broken.read_text()}
    ended = planted.run(
        ("notify-test",),
        ("verify", backup, "--level", "full", "--identity", stranger.path),
        ("verify", backup, "--level", "full", "--identity", broken),
        ("restore", backup, "--to", folder / "a.sqlite3", "--identity", stranger.path),
        ("restore", backup, "--to", folder / "missing" / "a.sqlite3"),
        ("restore", backup, "--reason", "a test", "--user", "anna", "--json"),
        ("create", "default", "--enqueue"),
        ("create", "nobody"),
        ("prove", "--out", folder / "challenge.age"),
        ("prove", "--answer", planted.secrets["wrong"]),
        ("keys", "--kit", folder / "kit.txt"),
        ("keygen", "--out", folder / "kit.txt"),
        ("rekey", backup, "--identity", stranger.path),
        ("triage", folder / "key.txt", "--identity", stranger.path, "--json"),
        ("tick",),
        ("jobs", "--all", "--json"),
        ("rescan", "--json"),
        ("prune", "--yes"),
        ("status", "--json"),
        ("show", backup, "--json"),
    )
    assert len(ended) == 20
    assert sum(each != "0" for each in ended) >= 6, ended
    request = planted.site.console.query("SELECT id FROM backups_app_restore")[0][0]
    planted.run(("approve", request, "--user", "ben", "--yes", "--identity", stranger.path))
    create = ("create", "default")
    planted.run(create, ("verify", backup), BACKUPS_AGE_PASSPHRASE=f"not-{planted.secrets['wrong']}")
    planted.run(create, BACKUPS_WEBHOOK_URLS=f"nonsense-{planted.secrets['hook']}")
    planted.run(create, BACKUPS_METRICS_TOKEN="short", BACKUPS_AGE_RECIPIENTS=planted.secrets["age"])
    planted.run(create, BACKUPS_REDIS_URL=f"nonsense-{planted.secrets['redis']}")
    catalog = f"postgresql://walsafe:{planted.secrets['catalog']}@127.0.0.1:{some_port()}/walsafe"
    for url in (catalog, f"{catalog}?nonsense=1", f"{catalog}#x"):
        planted.run(("status", "--json"), BACKUPS_CATALOG_URL=url)
    planted.run(create, BACKUPS_S3_ENDPOINT_URL=f"nonsense-{planted.secrets['s3key']}")
    live = planted.site.path
    shutil.move(live, live.with_name("aside"))
    for archive in (planted.site.console.home / "archives").rglob("*.age"):
        archive.write_bytes(archive.read_bytes()[:-1])
    planted.run(create, ("status",), ("verify", "--all"), ("notify-test", "--json"))
    shutil.move(live.with_name("aside"), live)


def leaks(planted: dict[str, str], places: dict[str, bytes]) -> list[str]:
    """Which secret stands where, also in the encodings that one meets."""
    found = []
    for name, secret in planted.items():
        forms = {secret.encode(), base64.b64encode(secret.encode())[:-4], json.dumps(secret)[1:-1].encode()}
        for place, content in places.items():
            if any(form in content for form in forms):
                at = min(content.find(form) for form in forms if form in content)
                found.append(f"{name} in {place}: …{content[max(0, at - 120) : at + 20]!r}")
    return found


def only_in_its_file(files: dict[str, bytes], place: str) -> None:
    """A key that we made ourselves stands in one file."""
    (line,) = re.findall(rb"-----\n([A-Za-z0-9+/=]+)\n-----", files[place])
    raw = base64.b64decode(line)[-32:]
    assert [name for name, content in files.items() if line in content or raw in content] == [place]


def test_a_leak_would_be_noticed():
    planted = {"hook": "planted-hook-1234"}
    assert leaks(planted, {"log": b"calling http://x/planted-hook-1234"}) != []
    assert leaks(planted, {"row": base64.b64encode(b"planted-hook-1234")}) != []
    assert leaks(planted, {"log": b"calling http://x/"}) == []


def test_the_settings_in_a_report_hide_a_password_in_an_address(planted: Planted):
    program = (
        "from django.views.debug import get_default_exception_reporter_filter as default\n"
        "print(default().get_safe_settings())"
    )
    finished = subprocess.run(
        [sys.executable, "-c", django_program(planted.site.console, program)[2]],
        cwd=PROJECT,
        env=environment(planted.site.console.home, **planted.site.console.extra),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "redis://127.0.0.1" in finished.stdout
    assert leaks(planted.secrets, {"settings": finished.stdout.encode()}) == []
