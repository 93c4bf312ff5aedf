"""The console runs with no environment at all, and keeps its secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from backups_app.core.sqlite import has_wal_reset_bug
from project.home import load_secret_key, prepare_home
from tests.console import Console, environment
from tests.support import PROJECT, names_in

_SHOW = """
import json, os
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
from django.conf import settings
print(json.dumps({name: getattr(settings, name) for name in (
    "EMAIL_HOST", "EMAIL_PORT", "EMAIL_HOST_PASSWORD", "EMAIL_USE_TLS",
    "SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "DATABASES", "BACKUPS", "HOME", "DATABASE_ROUTERS",
    "Q_CLUSTER")}, default=str))
"""


def start(home: Path | None, **extra: str) -> subprocess.Popen[bytes]:
    variables = environment(home or Path(), **extra)
    if home is None:
        del variables["BACKUPS_HOME"]
    return subprocess.Popen([sys.executable, "-c", _SHOW], env=variables, cwd=PROJECT, stdout=subprocess.PIPE)


def show(home: Path | None, **extra: str) -> dict[str, Any]:
    """The settings of a fresh process."""
    stdout, _ = start(home, **extra).communicate(timeout=60)
    found = json.loads(stdout)
    assert isinstance(found, dict)
    return found


def test_the_defaults_are_safe(tmp_path: Path):
    found = show(tmp_path / "home", BACKUPS_REUSE_UNCHANGED="")  # the tests set it for themselves
    assert found["DEBUG"] is False
    assert found["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]
    assert found["DATABASE_ROUTERS"] == ["backups_app.routers.CatalogRouter"]
    assert found["BACKUPS"] == {
        "HOME": str(tmp_path / "home"),
        "HOST": None,
        "DESTINATIONS": ["local"],
        "REUSE_UNCHANGED": True,
        "DELTA_CHAIN": 0,
        "ROOTS": [],
        "NOTIFY_EMAILS": [],
        "TRIAGE_ROOTS": [],
        "TRIAGE_KEY_FILES": [],
    }


def test_the_home_without_an_environment_lies_beside_manage_py():
    assert show(None, DJANGO_SECRET_KEY="given")["HOME"] == str(PROJECT / "var")


def test_the_catalogue_and_the_site_are_two_files_in_the_home(tmp_path: Path):
    found = show(tmp_path / "home")["DATABASES"]
    assert {alias: database["NAME"] for alias, database in found.items()} == {
        "default": str(tmp_path / "home" / "site.sqlite3"),
        "catalog": str(tmp_path / "home" / "catalog.sqlite3"),
    }


def test_transactions_are_immediate_and_journals_safe(tmp_path: Path):
    found = show(tmp_path / "home")["DATABASES"]
    assert {database["OPTIONS"]["transaction_mode"] for database in found.values()} == {"IMMEDIATE"}
    assert "journal_mode=WAL;" in found["default"]["OPTIONS"]["init_command"]
    safe = "DELETE" if has_wal_reset_bug() else "WAL"
    assert f"journal_mode={safe};" in found["catalog"]["OPTIONS"]["init_command"]
    assert "synchronous=FULL" in found["catalog"]["OPTIONS"]["init_command"]


def test_importing_the_settings_makes_no_database(tmp_path: Path):
    show(tmp_path / "home")
    assert names_in(tmp_path / "home") == {"state"}


def test_the_environment_is_read(tmp_path: Path):
    found = show(
        tmp_path / "home",
        DJANGO_DEBUG="True",
        DJANGO_ALLOWED_HOSTS="a.example, b.example",
        BACKUPS_ROOTS=f"/srv{os.pathsep} /data ",
        BACKUPS_TRIAGE_ROOTS="/srv/old",
        BACKUPS_TRIAGE_KEY_FILES=f"/keys{os.pathsep}/identity",
    )
    assert found["DEBUG"] is True
    assert found["ALLOWED_HOSTS"] == ["a.example", "b.example"]
    assert found["BACKUPS"]["ROOTS"] == ["/srv", "/data"]
    assert found["BACKUPS"]["TRIAGE_ROOTS"] == ["/srv/old"]
    assert found["BACKUPS"]["TRIAGE_KEY_FILES"] == ["/keys", "/identity"]


def test_the_mail_server_comes_from_the_environment_and_its_password_from_a_file(tmp_path: Path):
    (tmp_path / "password").write_text("of-the-mail\n")
    found = show(
        tmp_path / "home",
        DJANGO_EMAIL_HOST="mail.example",
        DJANGO_EMAIL_PORT="587",
        DJANGO_EMAIL_USE_TLS="1",
        DJANGO_EMAIL_HOST_PASSWORD_FILE=str(tmp_path / "password"),
        BACKUPS_NOTIFY_EMAILS="a@x.example, b@x.example",
    )
    assert (found["EMAIL_HOST"], found["EMAIL_PORT"], found["EMAIL_USE_TLS"]) == ("mail.example", 587, True)
    assert found["EMAIL_HOST_PASSWORD"] == "of-the-mail"
    assert found["BACKUPS"]["NOTIFY_EMAILS"] == ["a@x.example", "b@x.example"]


def test_the_queue_lies_in_the_catalogue_and_delivers_running_work_once(tmp_path: Path):
    queue = show(tmp_path / "home")["Q_CLUSTER"]
    assert queue["orm"] == "catalog"
    assert "redis" not in queue
    assert queue["timeout"] < queue["retry"]
    assert (queue["max_attempts"], queue["scheduler"], queue["save_limit"]) == (1, False, -1)


def test_the_queue_may_be_redis_and_its_address_a_secret(tmp_path: Path):
    (tmp_path / "secret").write_text("redis://:pass@one/0\n")
    from_file = show(tmp_path / "home", BACKUPS_REDIS_URL_FILE=str(tmp_path / "secret"))["Q_CLUSTER"]
    assert from_file["redis"] == "redis://:pass@one/0"
    assert "orm" not in from_file
    both = {"BACKUPS_REDIS_URL": "redis://two/0", "BACKUPS_REDIS_URL_FILE": str(tmp_path / "secret")}
    assert show(tmp_path / "home", **both)["Q_CLUSTER"]["redis"] == "redis://two/0"


def test_the_secret_key_may_come_from_a_file(tmp_path: Path):
    (tmp_path / "secret").write_text("k" * 60 + "\n")
    assert show(tmp_path / "home", DJANGO_SECRET_KEY_FILE=str(tmp_path / "secret"))["SECRET_KEY"] == "k" * 60
    assert not (tmp_path / "home" / "state" / "secret_key").exists()


def test_a_secret_that_cannot_be_read_is_said_without_its_path(tmp_path: Path):
    finished = Console(tmp_path / "home", {"BACKUPS_REDIS_URL_FILE": str(tmp_path / "none")}).run("list")
    assert finished.code == 1
    assert "BACKUPS_REDIS_URL_FILE" in finished.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DJANGO_TIME_ZONE", "Nowhere/Land"),
        ("DJANGO_TIME_ZONE", "../../etc/passwd"),
        ("DJANGO_EMAIL_PORT", "smtp"),
        ("BACKUPS_DELTA_CHAIN", "-1"),
        ("BACKUPS_DELTA_CHAIN", "1.5"),
        ("BACKUPS_CATALOG_URL_FILE", "/nowhere/at/all"),
    ],
)
def test_an_environment_that_makes_no_sense_is_a_message_and_a_document(tmp_path: Path, name: str, value: str):
    finished = Console(tmp_path / "home", {name: value}).run("list", "--json")
    assert finished.code == 1
    assert finished.stderr.startswith("Error: ")
    (error,) = finished.document["errors"]
    assert error["code"] == "failed"
    assert name in error["message"]
    assert Console(tmp_path / "home", {name: value}).run("list").stdout == ""


@pytest.mark.parametrize("value", ["", "0", "false", "no", "nonsense"])
def test_debug_is_off_unless_it_is_clearly_on(tmp_path: Path, value: str):
    assert show(tmp_path / "home", DJANGO_DEBUG=value)["DEBUG"] is False


def test_the_secret_key_is_made_once_and_kept(tmp_path: Path):
    first, second = show(tmp_path / "home"), show(tmp_path / "home")
    assert first["SECRET_KEY"] == second["SECRET_KEY"]
    assert len(first["SECRET_KEY"]) >= 64
    assert show(tmp_path / "other")["SECRET_KEY"] != first["SECRET_KEY"]


def test_the_secret_key_of_the_environment_wins_and_nothing_is_written(tmp_path: Path):
    assert show(tmp_path / "home", DJANGO_SECRET_KEY="given")["SECRET_KEY"] == "given"
    assert names_in(tmp_path / "home" / "state") == set()


def test_eight_processes_at_once_get_one_key(tmp_path: Path):
    processes = [start(tmp_path / "home") for _ in range(8)]
    keys = {json.loads(process.communicate(timeout=60)[0])["SECRET_KEY"] for process in processes}
    assert len(keys) == 1
    assert names_in(tmp_path / "home" / "state") == {"secret_key"}, "no draft is left"


def test_the_key_file_is_private(tmp_path: Path):
    load_secret_key(tmp_path / "secret_key")
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_a_key_is_not_made_where_a_link_leads_nowhere(tmp_path: Path):
    (tmp_path / "secret_key").symlink_to(tmp_path / "missing" / "elsewhere")
    with pytest.raises(ImproperlyConfigured):
        load_secret_key(tmp_path / "secret_key")
    assert names_in(tmp_path) == {"secret_key"}


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 90])
def test_a_damaged_key_is_refused_and_kept(tmp_path: Path, content: bytes):
    (tmp_path / "secret_key").write_bytes(content)
    with pytest.raises(ImproperlyConfigured, match="secret key file"):
        load_secret_key(tmp_path / "secret_key")
    assert (tmp_path / "secret_key").read_bytes() == content


def test_a_folder_that_cannot_be_written_is_said_with_the_way_out(tmp_path: Path):
    with pytest.raises(ImproperlyConfigured, match="DJANGO_SECRET_KEY"):
        load_secret_key(tmp_path / "missing" / "secret_key")


def test_the_home_is_private(tmp_path: Path):
    assert prepare_home(tmp_path / "home") == tmp_path / "home"
    for folder in (tmp_path / "home", tmp_path / "home" / "state"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_home_that_is_there_is_left_as_it_is(tmp_path: Path):
    (tmp_path / "home").mkdir(mode=0o750)
    (tmp_path / "home").chmod(0o750)
    prepare_home(tmp_path / "home")
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("below", ["", "/home", "/deep/home"])
def test_a_file_in_place_of_the_home_is_refused_by_name(tmp_path: Path, below: str):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ImproperlyConfigured, match="BACKUPS_HOME"):
        prepare_home(Path(f"{tmp_path}/file{below}"))
    assert (tmp_path / "file").read_text() == "in the way"
