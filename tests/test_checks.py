"""Each set-up fault is found, with its id and its cure, and nothing else is."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, run_checks
from pytest_django.fixtures import Settings

from backups_app import checks
from backups_app.conf import DEFAULTS
from backups_app.core.sqlite import has_wal_reset_bug
from tests.keys import Key

pytestmark = pytest.mark.usefixtures("home")

NOTICE = {"backups.W002"} if has_wal_reset_bug() else set()


@pytest.fixture
def databases(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """DATABASES, to be changed for one test. (Open connections keep their own settings.)"""
    changed = deepcopy(django_settings.DATABASES)
    monkeypatch.setitem(vars(django_settings), "DATABASES", changed)
    return changed


def found() -> dict[str, CheckMessage]:
    """The messages of our checks by their ids; each has a hint."""
    messages = run_checks(tags=[checks.TAG])
    assert all(message.hint for message in messages)
    assert len({message.id for message in messages}) == len(messages)
    return {str(message.id): message for message in messages}


def ids() -> set[str]:
    return set(found()) - NOTICE


def test_the_console_has_no_fault():
    assert ids() == set()


def test_a_known_bug_of_sqlite_is_a_warning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checks, "has_wal_reset_bug", lambda: True)
    assert "3.51.3" in str(found()["backups.W002"].hint)
    assert not found()["backups.W002"].is_serious()
    monkeypatch.setattr(checks, "has_wal_reset_bug", lambda: False)
    assert "backups.W002" not in found()


def test_a_missing_catalogue_alias_is_an_error(databases: dict[str, Any]):
    del databases["catalog"]
    assert ids() == {"backups.E001"}
    assert "DATABASES['catalog']" in str(found()["backups.E001"].hint)


@pytest.mark.parametrize("spelling", ["{0}/site.sqlite3", "{0}/../{1}/site.sqlite3", "{0}/link.sqlite3"])
def test_a_catalogue_inside_a_database_under_care_is_an_error(databases: dict[str, Any], tmp_path: Path, spelling: str):
    (tmp_path / "site.sqlite3").touch()
    (tmp_path / "link.sqlite3").symlink_to("site.sqlite3")
    databases["default"]["NAME"] = tmp_path / "site.sqlite3"
    databases["catalog"]["NAME"] = spelling.format(tmp_path, tmp_path.name)
    assert ids() == {"backups.E002"}
    databases["catalog"]["NAME"] = tmp_path / "catalog.sqlite3"
    assert ids() == set()


def test_two_servers_are_not_one_database(databases: dict[str, Any]):
    for alias, host in (("default", "one"), ("catalog", "two")):
        databases[alias] = {"ENGINE": "django.db.backends.postgresql", "NAME": "site", "HOST": host}
    assert "backups.E002" not in ids()
    databases["catalog"]["HOST"] = "one"
    assert "backups.E002" in ids()


def test_a_missing_router_is_an_error(settings: Settings):
    settings.DATABASE_ROUTERS = []
    assert ids() == {"backups.E003"}
    assert "backups_app.routers.CatalogRouter" in str(found()["backups.E003"].hint)


@pytest.mark.parametrize("mode", [None, "DEFERRED", "EXCLUSIVE"])
def test_a_catalogue_without_immediate_transactions_is_a_warning(databases: dict[str, Any], mode: str | None):
    databases["catalog"]["OPTIONS"] = {} if mode is None else {"transaction_mode": mode}
    assert ids() == {"backups.W001"}
    assert not found()["backups.W001"].is_serious()


def test_the_case_of_the_transaction_mode_does_not_matter(databases: dict[str, Any]):
    databases["catalog"]["OPTIONS"] = {"transaction_mode": "immediate"}
    assert ids() == set()


@pytest.mark.parametrize("given", [None, [], "x", 5])
def test_settings_that_are_no_dict_are_an_error(settings: Settings, given: object):
    settings.BACKUPS = given
    assert "backups.E004" in ids()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOME", 5),
        ("ROOTS", "/srv"),
        ("ROOTS", [5]),
        ("ROOTS", [""]),
        ("TRIAGE_ROOTS", "/srv"),
        ("TRIAGE_ROOTS", [""]),
        ("TRIAGE_KEY_FILES", [5]),
        ("REQUIRED_TABLES", ["auth_user"]),
        ("REQUIRED_TABLES", {"default": "auth_user"}),
        ("REQUIRED_TABLES", {5: []}),
        ("FRESHNESS_HOURS", 0),
        ("FRESHNESS_HOURS", "26"),
        ("FRESHNESS_HOURS", True),
        ("FRESHNESS_HOURS", None),
        ("FRESHNESS_HOURS", float("inf")),
        ("FRESHNESS_HOURS", float("nan")),
        ("BUSY_TIMEOUT_SECONDS", -1),
        ("DEADLINE_SECONDS", 0),
        ("DEADLINE_SECONDS", "6 h"),
        ("STOP_SECONDS", -1),
        ("STOP_SECONDS", None),
        ("INTEGRITY_CHECK_MAX_BYTES", -1),
        ("INTEGRITY_CHECK_MAX_BYTES", 1.5),
        ("ZSTD_LEVEL", 0),
        ("ZSTD_LEVEL", 20),
        ("ZSTD_WORKERS", -1),
        ("ZSTD_WORKERS", "2"),
        ("RETENTION", [7]),
        ("RETENTION", {"last": 7}),
        ("RETENTION", {"keep_last": -1}),
        ("RETENTION", {"keep_last": True}),
        ("RETENTION", {"keep_last": 1e9}),
        ("SAFETY_DAYS", -1),
        ("FAILED_DAYS", "30"),
        ("VERIFY_DAYS", 0),
        ("SCRUB_BYTES_PER_DAY", 0),
        ("SCRUB_BYTES_PER_DAY", 1.5),
        ("DRILL_DAYS", 0),
        ("DRILL_CHECKS", "shop.drills.check"),
        ("DRILL_CHECKS", ["check"]),
        ("DRILL_CHECKS", {"default": "shop.drills.check"}),
        ("DRILL_CHECKS", {1: []}),
        ("DRILL_CHECK_SECONDS", 0),
        ("NOTIFY_EMAILS", "ops@x.example"),
        ("NOTIFY_EMAILS", ["ops"]),
        ("NOTIFY_EMAILS", ["a@x.example\nBcc: b@x.example"]),
        ("NOTIFY_REMIND_HOURS", 0),
        ("NOTIFY_REMIND_HOURS", 721),
        ("WEBHOOK_URLS", "http://x.example"),
        ("WEBHOOK_URLS", ["x.example"]),
        ("HEARTBEAT_URL", ["http://x.example"]),
        ("UPLOAD_MAX_BYTES", 0),
        ("UPLOAD_MAX_BYTES", None),
        ("UPLOAD_KEEP_HOURS", 0),
        ("DOWNLOAD_MAX_BYTES", True),
        ("ANOMALY_PERCENT", 0),
        ("ANOMALY_PERCENT", 101),
        ("WAL_LIMIT_BYTES", 0),
        ("METRICS_TOKEN", "short"),
        ("METRICS_TOKEN", "with a blank in between"),
        ("HEARTBEAT_URL", "ftp://x.example"),
    ],
)
def test_a_value_that_cannot_be_used_is_an_error(settings: Settings, name: str, value: object):
    settings.BACKUPS = {**settings.BACKUPS, name: value}
    message = found()["backups.E005"]
    assert name in message.msg
    assert str(message.hint).startswith("Give ")
    assert message.is_serious()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROOTS", ["/srv", Path("/data")]),
        ("ROOTS", ()),
        ("TRIAGE_ROOTS", ["/srv/old"]),
        ("TRIAGE_KEY_FILES", [Path("/keys"), "/identity"]),
        ("REQUIRED_TABLES", {"default": ["auth_user"], "shop": ()}),
        ("FRESHNESS_HOURS", 0.5),
        ("BUSY_TIMEOUT_SECONDS", 0),
        ("DEADLINE_SECONDS", None),
        ("STOP_SECONDS", 0),
        ("INTEGRITY_CHECK_MAX_BYTES", 0),
        ("ZSTD_LEVEL", 19),
        ("RETENTION", {}),
        ("RETENTION", {"keep_last": 0, "keep_within_days": 90}),
        ("SAFETY_DAYS", 0),
        ("VERIFY_DAYS", 0.5),
        ("SCRUB_BYTES_PER_DAY", None),
        ("DRILL_DAYS", 30),
        ("DRILL_CHECKS", ["backups_app.drills.examples.somebody_can_administer"]),
        ("DRILL_CHECKS", {"default": ("backups_app.drills.examples.migrations_are_recorded",)}),
        ("ZSTD_WORKERS", 0),
        ("NOTIFY_EMAILS", ["ops@x.example"]),
        ("NOTIFY_EMAILS", None),
        ("NOTIFY_REMIND_HOURS", 0.5),
        ("WEBHOOK_URLS", ("https://x.example/a?b=c",)),
        ("HEARTBEAT_URL", "http://x.example"),
        ("HEARTBEAT_URL", ""),
        ("UPLOAD_MAX_BYTES", 1),
        ("UPLOAD_KEEP_HOURS", 0.5),
        ("DOWNLOAD_MAX_BYTES", None),
        ("ANOMALY_PERCENT", 12.5),
        ("METRICS_TOKEN", "0123456789abcdef"),
    ],
)
def test_a_usable_value_is_accepted(settings: Settings, name: str, value: object):
    settings.BACKUPS = {**settings.BACKUPS, name: value}
    assert ids() == set()


@pytest.mark.parametrize(
    ("name", "value"), [("WEBHOOK_URLS", ["x/t0ken"]), ("HEARTBEAT_URL", "x/t0ken"), ("METRICS_TOKEN", "t0ken")]
)
def test_a_secret_that_cannot_be_used_is_not_shown(settings: Settings, name: str, value: object):
    settings.BACKUPS = {**settings.BACKUPS, name: value}
    assert found()["backups.E005"].msg == f"BACKUPS[{name!r}] cannot be used."


@pytest.mark.parametrize("name", ["WEBHOOK_URLS", "HEARTBEAT_URL"])
def test_secrets_of_the_environment_are_judged_and_not_shown(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
):
    monkeypatch.setenv(f"BACKUPS_{name}_FILE", str(tmp_path / "missing"))
    assert "cannot be read" in found()["backups.E020"].msg
    monkeypatch.setenv(f"BACKUPS_{name}", "ftp://x.example/t0ken")
    assert found()["backups.E020"].msg == f"BACKUPS_{name} in the environment cannot be used."
    monkeypatch.setenv(f"BACKUPS_{name}", "https://x.example/t0ken")
    assert ids() == set()
    monkeypatch.delenv(f"BACKUPS_{name}")
    settings.BACKUPS = {**settings.BACKUPS, name: "http://x.example" if name == "HEARTBEAT_URL" else ["http://x"]}
    assert ids() == set(), "what is not used is not judged"


def test_the_token_of_the_metrics_in_the_environment_is_judged_and_not_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BACKUPS_METRICS_TOKEN", "t0ken")
    assert found()["backups.E020"].msg == "BACKUPS_METRICS_TOKEN in the environment cannot be used."
    monkeypatch.setenv("BACKUPS_METRICS_TOKEN", "0123456789abcdef")
    assert ids() == set()


def test_every_setting_has_a_rule_and_every_default_is_usable(settings: Settings):
    assert set(checks._RULES) == set(DEFAULTS)
    settings.BACKUPS = {**DEFAULTS, "HOME": settings.BACKUPS["HOME"]}
    assert ids() == set()


@pytest.mark.parametrize("name", ["no.such.module", "backups_app.drills.examples.nothing", "backups_app.drills"])
def test_a_drill_check_that_cannot_be_called_is_named(settings: Settings, name: str):
    settings.BACKUPS = {**settings.BACKUPS, "DRILL_CHECKS": [name]}
    assert ids() == {"backups.W050"}
    assert repr(name) in found()["backups.W050"].msg


def test_an_unknown_key_gets_a_suggestion(settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "FRESHNES_HOURS": 5}
    assert ids() == {"backups.W003"}
    assert found()["backups.W003"].hint == "Did you mean 'FRESHNESS_HOURS'?"


def test_an_unknown_key_without_a_likeness_gets_the_list(settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "zzz": 5}
    assert "ZSTD_LEVEL" in str(found()["backups.W003"].hint)


def test_no_place_to_write_to_is_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("BACKUPS_HOME", raising=False)
    settings.BACKUPS = {}
    del settings.BASE_DIR
    assert ids() == {"backups.E006"}


def test_the_home_of_an_unknown_user_is_an_error(settings: Settings):
    settings.BACKUPS = {"HOME": "~nobody-has-this-name/backups"}
    assert ids() == {"backups.E006"}


@pytest.mark.parametrize("name", ["MEDIA_ROOT", "STATIC_ROOT"])
def test_archives_that_a_web_server_would_hand_out_are_an_error(settings: Settings, home: Path, name: str):
    for public in (home, home.parent, home / "archives", home / "state"):
        setattr(settings, name, str(public))
        assert ids() == {"backups.E007"}, public
        assert name in found()["backups.E007"].msg
    setattr(settings, name, str(home / "static"))
    assert ids() == set()


@pytest.mark.parametrize(
    ("engine", "is_left_out"),
    [
        ("django.db.backends.postgresql", True),
        ("django.db.backends.mysql", True),
        ("django.db.backends.oracle", True),
        ("django.db.backends.sqlite3", False),
        ("django.contrib.gis.db.backends.spatialite", False),
        ("django.contrib.gis.db.backends.postgis", True),
    ],
)
def test_an_alias_that_is_not_sqlite_is_named(databases: dict[str, Any], engine: str, is_left_out: bool):
    databases["other"] = {"ENGINE": engine, "NAME": "other"}
    assert ids() == ({"backups.I001"} if is_left_out else set())
    if is_left_out:
        assert "'other'" in found()["backups.I001"].msg
        assert not found()["backups.I001"].is_serious()


QUEUE = {"orm": "catalog", "timeout": 10, "retry": 20, "max_attempts": 1}


@pytest.mark.parametrize(
    ("queue", "expected"),
    [
        (QUEUE, set()),
        ({**QUEUE, "orm": "default"}, {"backups.E030"}),
        ({**QUEUE, "orm": None}, {"backups.W030"}),
        ({}, {"backups.W030"}),
        ({**QUEUE, "timeout": 20}, {"backups.W031"}),
        ({**QUEUE, "timeout": None}, {"backups.W031"}),
        ({"orm": "catalog", "timeout": 60, "max_attempts": 1}, {"backups.W031"}),
        ({**QUEUE, "max_attempts": 0}, {"backups.W032"}),
        ({"orm": "catalog", "timeout": 10, "retry": 20}, {"backups.W032"}),
        ({"redis": "redis://127.0.0.1"}, set()),
    ],
)
def test_a_queue_that_loses_or_repeats_work_is_found(settings: Settings, queue: dict[str, object], expected: set[str]):
    settings.Q_CLUSTER = queue
    assert ids() == expected


def test_a_site_without_a_queue_is_told(settings: Settings):
    del settings.Q_CLUSTER
    assert ids() == {"backups.W030"}


# Keys


def test_recipients_that_cannot_be_used_are_an_error_without_their_text(settings: Settings, key: Key):
    for bad in (["age1nonsense"], key.secret, "age1x, age1y"):
        settings.BACKUPS = {**settings.BACKUPS, "AGE_RECIPIENTS": bad}
        message = found()["backups.E040"]
        assert key.secret not in str(message)
    settings.BACKUPS = {**settings.BACKUPS, "AGE_RECIPIENTS": 7}
    assert ids() == {"backups.E005"}
    settings.BACKUPS = {**settings.BACKUPS, "AGE_RECIPIENTS": [key.recipient]}
    assert ids() == set()


def test_an_identity_in_a_public_folder_is_a_warning(settings: Settings, key: Key, tmp_path: Path):
    settings.BACKUPS = {**settings.BACKUPS, "AGE_IDENTITY_FILE": str(key.path)}
    assert ids() == set()
    settings.MEDIA_ROOT = str(tmp_path)
    assert ids() - {"backups.E007"} == {"backups.W040"}


def test_an_identity_that_others_can_read_is_a_warning(settings: Settings, key: Key):
    settings.BACKUPS = {**settings.BACKUPS, "AGE_IDENTITY_FILE": str(key.path)}
    key.path.chmod(0o640)
    assert ids() == {"backups.W041"}
    assert "chmod 600" in str(found()["backups.W041"].hint)
