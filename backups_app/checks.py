"""System checks: a set-up fault is found before it costs data, with an id and the exact fix.

``backups.E…`` stop every verb; ``backups.W…`` are shown by ``manage.py check``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, register
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured

from . import conf, encryption
from .core.errors import BackupError, RefusedError
from .core.manifest import MAX_POSITION
from .core.retention import RULES
from .core.site_checks import find_site_check
from .core.sqlite import has_wal_reset_bug
from .destinations import LOCAL, get_destination, local_folders
from .media import checked_folders

TAG = "backups"


@register(TAG)
def check_catalog(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """The control database exists, lies apart, and is routed to."""
    databases: dict[str, dict[str, Any]] = settings.DATABASES
    if conf.CATALOG_ALIAS not in databases:
        return [
            Error(
                "DATABASES has no 'catalog' alias for the records of backups.",
                hint="Add DATABASES['catalog'] with its own SQLite file; it must not lie in a database under care.",
                id="backups.E001",
            )
        ]
    found: list[CheckMessage] = []
    catalog = databases[conf.CATALOG_ALIAS]
    for alias, other in databases.items():
        if alias != conf.CATALOG_ALIAS and _same_database(catalog, other):
            found.append(
                Error(
                    f"The catalogue and the database {alias!r} are the same.",
                    hint="Give DATABASES['catalog'] a file of its own: a restore would roll the records back.",
                    id="backups.E002",
                )
            )
    if "backups_app.routers.CatalogRouter" not in settings.DATABASE_ROUTERS:
        found.append(
            Error(
                "The router that keeps the catalogue apart is not installed.",
                hint="Add 'backups_app.routers.CatalogRouter' to DATABASE_ROUTERS.",
                id="backups.E003",
            )
        )
    if _is_sqlite(catalog) and catalog.get("OPTIONS", {}).get("transaction_mode", "").upper() != "IMMEDIATE":
        found.append(
            CheckWarning(
                "The catalogue does not use IMMEDIATE transactions; records can get lost when processes write at once.",
                hint="Set DATABASES['catalog']['OPTIONS']['transaction_mode'] = 'IMMEDIATE'.",
                id="backups.W001",
            )
        )
    return found


def _same_database(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return _place(first) == _place(second)


def _place(database: dict[str, Any]) -> tuple[str, ...]:
    if _is_sqlite(database) and database.get("NAME"):
        return (str(Path(database["NAME"]).resolve()),)  # links and relative paths lead to one file
    return tuple(str(database.get(key, "")) for key in ("ENGINE", "NAME", "HOST", "PORT"))


def _is_sqlite(database: dict[str, Any]) -> bool:
    return "lite" in str(database.get("ENGINE", "")).rpartition(".")[2]  # sqlite3, spatialite


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_list_of_paths(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str | Path) and str(each) for each in value)


def _is_list_of_names(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(each, str) and 0 < len(each) <= 100 and each.isprintable() for each in value)
    )


def _is_table_map(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tables, list | tuple) and all(isinstance(each, str) for each in tables)
        for name, tables in value.items()
    )


def _is_media(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and isinstance(folders, list | tuple)
        and all(isinstance(each, str | Path) and str(each) for each in folders)
        for name, folders in value.items()
    )


def _is_list_of_emails(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(each, str) and re.fullmatch(r"[^@\s]+@[^@\s]+", each) for each in value
    )


def _is_list_of_web_addresses(value: object) -> bool:
    return isinstance(value, list | tuple) and all(conf.is_web_address(each) for each in value)


def _is_retention(value: object) -> bool:
    return isinstance(value, dict) and all(
        name in RULES and isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 100_000
        for name, number in value.items()
    )


def _is_days(value: object) -> bool:
    return _is_number(value) and 0 <= value < 36_600  # type: ignore[operator]


def _is_drill_checks(value: object) -> bool:
    lists = list(value.values()) if isinstance(value, dict) else [value]
    names = [each for found in lists if isinstance(found, list | tuple) for each in found]
    return (
        all(isinstance(found, list | tuple) for found in lists)
        and all(isinstance(name, str) and re.fullmatch(r"\w+(\.\w+)+", name) for name in names)
        and (not isinstance(value, dict) or all(isinstance(name, str) for name in value))
    )


def _is_text_or_texts(value: object) -> bool:
    texts = value if isinstance(value, list | tuple) else [value]
    return value is None or all(isinstance(each, str) for each in texts)


def _is_count_of_bytes(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


# Setting → is the value usable, and what it should be.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "HOME": (lambda value: value is None or isinstance(value, str | Path), "a path"),
    "ROOTS": (_is_list_of_paths, "a list of folders"),
    "MEDIA": (_is_media, "a dict of database name to a list of absolute folders"),
    "REQUIRED_TABLES": (_is_table_map, "a dict of database name to a list of table names"),
    "FRESHNESS_HOURS": (lambda value: _is_number(value) and 0 < value < 1e6, "a number of hours above 0"),
    "BUSY_TIMEOUT_SECONDS": (lambda value: _is_number(value) and value >= 0, "a number of seconds"),
    "DEADLINE_SECONDS": (lambda value: value is None or (_is_number(value) and value > 0), "seconds, or None"),
    "HOST": (
        lambda value: value is None or (isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()),
        "a name, or None",
    ),
    "QUEUE_WAIT_SECONDS": (lambda value: _is_number(value) and value >= 0, "a number of seconds"),
    "RESTORE_WAIT_SECONDS": (lambda value: _is_number(value) and value >= 0, "a number of seconds"),
    "FOUR_EYES": (lambda value: isinstance(value, bool), "True or False"),
    "APPROVAL_HOURS": (lambda value: _is_number(value) and value > 0, "a positive number of hours"),
    "STOP_SECONDS": (lambda value: _is_number(value) and value >= 0, "a number of seconds"),
    "INTEGRITY_CHECK_MAX_BYTES": (lambda value: isinstance(value, int) and value >= 0, "a number of bytes"),
    "NOTIFY_EMAILS": (lambda value: value is None or _is_list_of_emails(value), "a list of mail addresses, or None"),
    "NOTIFY_REMIND_HOURS": (lambda value: _is_number(value) and 0 < value <= 24 * 30, "hours, at most 720"),
    "WEBHOOK_URLS": (
        lambda value: value is None or _is_list_of_web_addresses(value),
        "a list of http or https addresses, or None",
    ),
    "HEARTBEAT_URL": (lambda value: value in (None, "") or conf.is_web_address(value), "an http or https address"),
    "RETENTION": (_is_retention, f"a dict of {', '.join(RULES)} to whole numbers from 0"),
    "SAFETY_DAYS": (_is_days, "a number of days"),
    "FAILED_DAYS": (_is_days, "a number of days"),
    "VERIFY_DAYS": (lambda value: _is_days(value) and value > 0, "a positive number of days"),
    "SCRUB_BYTES_PER_DAY": (
        lambda value: value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0),
        "a number of bytes, or None",
    ),
    "DRILL_DAYS": (
        lambda value: value is None or (_is_days(value) and value > 0),
        "a positive number of days, or None",
    ),
    "DRILL_CHECKS": (_is_drill_checks, "a list of dotted names, or a dict of database name to such a list"),
    "DRILL_CHECK_SECONDS": (lambda value: _is_number(value) and value > 0, "a positive number of seconds"),
    "AGE_RECIPIENTS": (_is_text_or_texts, "an age recipient (age1…), or a list of them"),
    "AGE_RECIPIENTS_FILE": (lambda value: value is None or isinstance(value, str | Path), "a path, or None"),
    "AGE_IDENTITY_FILE": (lambda value: value is None or isinstance(value, str | Path), "a path, or None"),
    "AGE_PASSPHRASE": (lambda value: value is None or isinstance(value, str), "a text, or None"),
    "AGE_PROOF_MONTHS": (lambda value: _is_number(value) and 0 < value <= 120, "a number of months, at most 120"),
    "TRIAGE_ROOTS": (_is_list_of_paths, "a list of folders"),
    "TRIAGE_KEY_FILES": (_is_list_of_paths, "a list of files or folders"),
    "UPLOAD_MAX_BYTES": (_is_count_of_bytes, "a number of bytes above 0"),
    "UPLOAD_KEEP_HOURS": (lambda value: _is_number(value) and 0 < value <= 24 * 365, "hours, at most 8760"),
    "DOWNLOAD_MAX_BYTES": (
        lambda value: value is None or _is_count_of_bytes(value),
        "a number of bytes above 0, or None",
    ),
    "ANOMALY_PERCENT": (lambda value: _is_number(value) and 0 < value <= 100, "a percentage above 0, at most 100"),
    "WAL_LIMIT_BYTES": (lambda value: isinstance(value, int) and value > 0, "a number of bytes above 0"),
    "METRICS_TOKEN": (lambda value: value in (None, "") or conf.is_token(value), "at least 16 visible characters"),
    "DESTINATIONS": (_is_list_of_names, 'a list of names, such as ["local"]'),
    "REUSE_UNCHANGED": (lambda value: isinstance(value, bool), "True or False"),
    "DELTA_CHAIN": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_POSITION,
        f"a whole number from 0 (no deltas) to {MAX_POSITION}",
    ),
    "ZSTD_LEVEL": (lambda value: isinstance(value, int) and 1 <= value <= 19, "a whole number from 1 to 19"),
    "ZSTD_WORKERS": (lambda value: isinstance(value, int) and 0 <= value <= 16, "a whole number from 0 to 16"),
}

# Their values hold tokens, or a secret key in the wrong place, which belong in no message.
_SECRET_NAMES = ("WEBHOOK_URLS", "HEARTBEAT_URL", "AGE_RECIPIENTS", "AGE_PASSPHRASE", "METRICS_TOKEN")


@register(TAG)
def check_settings(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """Every key of BACKUPS is known and its value usable."""
    given = getattr(settings, "BACKUPS", {})
    if not isinstance(given, dict):
        return [Error("BACKUPS must be a dict.", hint="Write BACKUPS = {…} in the settings.", id="backups.E004")]
    found: list[CheckMessage] = []
    for name, value in given.items():
        if name not in _RULES:
            close = get_close_matches(str(name), _RULES, n=1)
            found.append(
                CheckWarning(
                    f"BACKUPS has an unknown key {name!r}, which does nothing.",
                    hint=f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(_RULES)}.",
                    id="backups.W003",
                )
            )
            continue
        is_usable, expected = _RULES[name]
        if not is_usable(value):
            shown = "" if name in _SECRET_NAMES else f" is {value!r}, which"
            found.append(
                Error(
                    f"BACKUPS[{name!r}]{shown} cannot be used.",
                    hint=f"Give {expected}.",
                    id="backups.E005",
                )
            )
    return found


@register(TAG)
def check_home(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """There is a place to write to, and no web server hands it out."""
    try:
        home = conf.home()
    except (ImproperlyConfigured, RuntimeError, TypeError, ValueError) as exc:
        return [
            Error(
                f"There is no folder for backups: {exc}",
                hint="Set BACKUPS['HOME'] or the environment variable BACKUPS_HOME.",
                id="backups.E006",
            )
        ]
    found: list[CheckMessage] = []
    for name in ("MEDIA_ROOT", "STATIC_ROOT"):
        public = getattr(settings, name, None)
        if not public:
            continue
        folder = Path(public).expanduser().absolute()
        if any(own == folder or folder in own.parents for own in (*_archive_folders(), home / "state")):
            found.append(
                Error(
                    f"The archives would lie inside {name}, which a web server hands out.",
                    hint="Move BACKUPS['HOME'], or the folder of that destination, out of it.",
                    id="backups.E007",
                )
            )
    return found


def _archive_folders() -> list[Path]:
    folders = [conf.archives_folder()]
    with suppress(TypeError, ValueError):  # check_settings has said so
        folders += [folder.absolute() for folder in local_folders().values()]
    return folders


@register(TAG)
def check_destinations(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """Every destination that backups go to can be made."""
    given = getattr(settings, "BACKUPS", {})
    names = given.get("DESTINATIONS", []) if isinstance(given, dict) else []
    if not _is_list_of_names(names):
        return []  # said by check_settings
    found: list[CheckMessage] = []
    for name in dict.fromkeys(names):
        if name == LOCAL:
            continue  # check_home looks at it
        try:
            get_destination(name)
        except RefusedError as exc:
            found.append(
                Error(f"BACKUPS['DESTINATIONS'] names {name!r}: {exc.message}", hint=exc.hint, id="backups.E060")
            )
    return found


@register(TAG)
def check_secrets(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """What the environment holds in place of a setting can be read and used."""
    given = getattr(settings, "BACKUPS", {})
    found: list[CheckMessage] = []
    for name, (is_usable, expected) in _SECRETS.items():
        if not isinstance(given, dict) or given.get(name):
            continue  # a setting is judged by check_settings
        try:
            fault = "" if is_usable() else f"BACKUPS_{name} in the environment cannot be used."
        except ImproperlyConfigured as exc:
            fault = str(exc)
        if fault:
            hint = f"Give {expected} in BACKUPS_{name}, or a file with it in BACKUPS_{name}_FILE."
            found.append(Error(fault, hint=hint, id="backups.E020"))
    return found


# Secret → is what the environment holds usable, or nothing; and what it should be.
_SECRETS: dict[str, tuple[Callable[[], bool], str]] = {
    "WEBHOOK_URLS": (lambda: all(map(conf.is_web_address, conf.webhook_urls())), "http or https addresses"),
    "HEARTBEAT_URL": (lambda: not (url := conf.heartbeat_url()) or conf.is_web_address(url), "a web address"),
    "METRICS_TOKEN": (
        lambda: not (token := conf.metrics_token()) or conf.is_token(token),
        "at least 16 visible characters",
    ),
}


@register(TAG)
def check_keys(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """Every recipient can be used, and no identity lies where others can read it."""
    found: list[CheckMessage] = []
    try:
        encryption.recipients()
    except BackupError as exc:
        # Nothing may be backed up then: a plain archive in place of an encrypted one is a leak.
        found.append(
            Error(f"The recipients of archives cannot be used: {exc.message}", hint=exc.hint, id="backups.E040")
        )
    except (TypeError, ValueError, ImproperlyConfigured):
        return found  # check_settings has said so
    with suppress(ImproperlyConfigured):  # no home: check_home has said so
        for path in encryption.identity_files():
            found += _check_identity_file(path)
    return found


def _check_identity_file(path: Path) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    name = encryption.public_folder_with(path)
    if name:
        found.append(
            CheckWarning(
                f"The identity file lies inside {name}.",
                hint="Move it away, and treat its keys as disclosed if others could fetch it.",
                id="backups.W040",
            )
        )
    if encryption.is_readable_by_others(path):
        found.append(
            CheckWarning(
                "The identity file may be read by other accounts of this machine.",
                hint=f"chmod 600 {path}",
                id="backups.W041",
            )
        )
    return found


@register(TAG)
def check_databases(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """Which aliases are left out, and whether this SQLite has a known corruption bug."""
    found: list[CheckMessage] = [
        Info(
            f"The database {alias!r} is not SQLite and is not under care.",
            hint="Back it up with its own tools.",
            id="backups.I001",
        )
        for alias, database in settings.DATABASES.items()
        if alias != conf.CATALOG_ALIAS and not _is_sqlite(database)
    ]
    if has_wal_reset_bug():
        import sqlite3

        found.append(
            CheckWarning(
                f"SQLite {sqlite3.sqlite_version} has a known bug that can corrupt WAL databases "
                "when two processes checkpoint at the same moment.",
                hint="Update SQLite to 3.51.3, 3.50.7 or 3.44.6. Backups stay safe: each is proven.",
                id="backups.W002",
            )
        )
    return found


_OTHER_BROKERS = ("redis", "django_redis", "broker_class", "iron_mq", "sqs", "mongo")


@register(TAG)
def check_queue(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """The queue is kept apart from what can be restored, and does not deliver running work again."""
    queue = getattr(settings, "Q_CLUSTER", {})
    alias = queue.get("orm")
    found: list[CheckMessage] = []
    if alias and alias != conf.CATALOG_ALIAS:
        found.append(
            Error(
                f"The queue is kept in the database {alias!r}.",
                hint="Set Q_CLUSTER['orm'] = 'catalog': restoring a database with a queue in it runs old work again.",
                id="backups.E030",
            )
        )
    if not alias and not any(queue.get(each) for each in _OTHER_BROKERS):
        found.append(
            CheckWarning(
                "Q_CLUSTER names no place for the queue; django-q2 then looks for Redis on this machine.",
                hint="Set Q_CLUSTER['orm'] = 'catalog', or Q_CLUSTER['redis'].",
                id="backups.W030",
            )
        )
    if alias and not _is_below(queue.get("timeout"), queue.get("retry", 60)):
        found.append(
            CheckWarning(
                "Q_CLUSTER delivers work again while it still runs: timeout is not below retry.",
                hint="Set Q_CLUSTER['timeout'] = 23400 and Q_CLUSTER['retry'] = 25200, for example.",
                id="backups.W031",
            )
        )
    if alias and queue.get("max_attempts", 0) != 1:
        found.append(
            CheckWarning(
                "Q_CLUSTER repeats work that has failed.",
                hint="Set Q_CLUSTER['max_attempts'] = 1: jobs that may be repeated are repeated by their own records.",
                id="backups.W032",
            )
        )
    return found


def _is_below(timeout: object, retry: object) -> bool:
    return _is_number(timeout) and _is_number(retry) and 0 < timeout < retry  # type: ignore[operator]


@register(TAG)
def check_drills(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """The site's own checks can be found; a missing one would fail each drill."""
    given = getattr(settings, "BACKUPS", {})
    value = given.get("DRILL_CHECKS", []) if isinstance(given, dict) else []
    if not _is_drill_checks(value):
        return []  # said by check_settings
    names = [name for found in (value.values() if isinstance(value, dict) else [value]) for name in found]
    found: list[CheckMessage] = []
    for name in dict.fromkeys(names):
        try:
            find_site_check(name)
        except Exception as exc:  # noqa: BLE001 - importing runs the site's code
            found.append(
                CheckWarning(
                    f"The drill check {name!r} cannot be used: {type(exc).__name__}: {exc}",
                    hint="Give dotted names of callables in BACKUPS['DRILL_CHECKS'].",
                    id="backups.W050",
                )
            )
    return found


@register(TAG)
def check_media(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """The folders in BACKUPS["MEDIA"] can be stored."""
    backups = getattr(settings, "BACKUPS", {})
    given = backups.get("MEDIA", {}) if isinstance(backups, dict) else {}
    if not _is_media(given):
        return []  # said already
    found: list[CheckMessage] = []
    for name, folders in given.items():
        try:
            checked_folders(folders)
        except (BackupError, ImproperlyConfigured, OSError, RuntimeError, TypeError) as exc:  # a wrong HOME, too
            message = exc.message if isinstance(exc, BackupError) else str(exc)
            hint = "Backups of this database fail until it is right: correct BACKUPS['MEDIA']."
            found.append(CheckWarning(f"BACKUPS['MEDIA'][{name!r}]: {message}", hint=hint, id="backups.W070"))
    return found
