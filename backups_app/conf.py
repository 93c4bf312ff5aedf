"""The settings of the app: one dict ``BACKUPS`` with defaults, read when it is asked for.

Reading lazily means that a test, or a host project, may change a setting at any time, and that
importing the app never fails because of one.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

CATALOG_ALIAS = "catalog"
"""The DATABASES alias of the control database; never under care, never a restore target."""

DEFAULTS: dict[str, Any] = {
    # Folder for archives/, scratch/ and state/. Default: $BACKUPS_HOME, else var/ beside manage.py.
    "HOME": None,
    # Where each backup is stored: "local" (the folder archives/), and names of STORAGES.
    "DESTINATIONS": ["local"],
    # Folders below which `backup add-database` accepts files. Default: none.
    "ROOTS": [],
    # Folders that are stored beside a database, per database name: {"default": ["/srv/site/media"]}.
    "MEDIA": {},
    # Tables that must hold rows, per database name: {"default": ["auth_user"]}.
    "REQUIRED_TABLES": {},
    # Oldest acceptable last verified backup, unless a database says otherwise.
    "FRESHNESS_HOURS": 26,
    # How long to wait for a lock on a database under care.
    "BUSY_TIMEOUT_SECONDS": 5,
    # Longest time for one backup or verification; None means no limit.
    "DEADLINE_SECONDS": 6 * 3600,
    # The name of this machine in the catalogue. Default: its host name.
    "HOST": None,
    # How long a command waits for its turn while another job of the same database runs.
    "QUEUE_WAIT_SECONDS": 600,
    # How long a restore waits for writers and readers of the live database before it gives up.
    "RESTORE_WAIT_SECONDS": 30,
    # A restore needs the approval of a second person. False: a person may approve their own.
    "FOUR_EYES": True,
    # How long a request for a restore, and its approval, may be used.
    "APPROVAL_HOURS": 24,
    # How long `backup serve`, told to end, lets running jobs work before it kills them.
    "STOP_SECONDS": 60,
    # Up to this size a new backup gets integrity_check, above it quick_check.
    "INTEGRITY_CHECK_MAX_BYTES": 64 << 20,
    # Receivers of mail on failure and recovery. None: the addresses in the setting ADMINS.
    "NOTIFY_EMAILS": None,
    # A failure that stays is mailed again after this time, not at each run.
    "NOTIFY_REMIND_HOURS": 24,
    # Addresses that get each outcome as JSON. Secret: better $BACKUPS_WEBHOOK_URLS, or a file, see given_or_secret().
    "WEBHOOK_URLS": None,
    # A dead man's switch: called after each backup, with /fail after each failure. Secret as well.
    "HEARTBEAT_URL": None,
    # Which backups `prune` keeps, unless a database says otherwise: {"keep_last": 7, …}. Without any: all of them.
    "RETENTION": {},
    # How long the backup that was made before a restore is kept, and the files of a failed backup.
    "SAFETY_DAYS": 30,
    "FAILED_DAYS": 30,
    # Each copy is read again and proven after this time, by `verify --due` and schedules.
    "VERIFY_DAYS": 30,
    # How many stored bytes that reads per day (UTC); None means no limit.
    "SCRUB_BYTES_PER_DAY": 50_000_000_000,
    # A drill that passed must not be older than this. None: drills are not asked for.
    "DRILL_DAYS": None,
    # What a restored database must answer in a drill: dotted names of callables, as a list, or per database name.
    "DRILL_CHECKS": [],
    # Longest time for one of them.
    "DRILL_CHECK_SECONDS": 60,
    # Public age recipients (age1…), a list or a text. Any of them turns encryption on; see encryption.py.
    "AGE_RECIPIENTS": None,
    "AGE_RECIPIENTS_FILE": None,
    # A file with secret age keys, for verifying and restoring on this host. Not needed for making backups.
    "AGE_IDENTITY_FILE": None,
    # The passphrase of that file, when it has one. Secret: better $BACKUPS_AGE_PASSPHRASE_FILE.
    "AGE_PASSPHRASE": None,  # nosec B105
    # How long a proof that somebody can open archives for a recipient counts.
    "AGE_PROOF_MONTHS": 6,
    # Folders below which archives of others may be judged, imported and deleted from the admin. Default: none.
    "TRIAGE_ROOTS": [],
    # Keys that triage tries: age identity files, 32-byte keys of the old system, folders with its keys.
    "TRIAGE_KEY_FILES": [],
    # Longest upload of an archive of others in the admin, and how long one stays in quarantine.
    "UPLOAD_MAX_BYTES": 1 << 30,
    "UPLOAD_KEEP_HOURS": 24,
    # Largest database that is unpacked for a download in the admin; None means no limit.
    "DOWNLOAD_MAX_BYTES": 2 << 30,
    # A backup with so many percent less rows or bytes than the ones before it needs attention.
    "ANOMALY_PERCENT": 50,
    # A write-ahead log larger than this needs attention.
    "WAL_LIMIT_BYTES": 1 << 30,
    # Who knows it may read /metrics. Secret: better $BACKUPS_METRICS_TOKEN, or a file.
    "METRICS_TOKEN": None,  # nosec B105
    # A backup of a database that did not change shares the archive of the one before.
    "REUSE_UNCHANGED": True,
    # At most so many archives of changed pages only after a full one, unless a database says otherwise; 0: none.
    "DELTA_CHAIN": 0,
    "ZSTD_LEVEL": 1,
    "ZSTD_WORKERS": 2,
}


def get(name: str) -> Any:
    """The value of one setting.

    Raises:
        KeyError: there is no such setting (a programming error).
        ImproperlyConfigured: BACKUPS is not a dict.
    """
    default = DEFAULTS[name]
    given = getattr(settings, "BACKUPS", {})
    if not isinstance(given, dict):
        raise ImproperlyConfigured("The setting BACKUPS must be a dict.")
    return given.get(name, default)


def home() -> Path:
    """The folder that everything is written to, absolute.

    Raises:
        ImproperlyConfigured: it is set nowhere and the project has no BASE_DIR.
    """
    given = get("HOME") or os.environ.get("BACKUPS_HOME")
    if given:
        return Path(given).expanduser().absolute()
    base = getattr(settings, "BASE_DIR", None)
    if base is None:
        raise ImproperlyConfigured("Set BACKUPS['HOME'] to the folder where backups may be written.")
    return Path(base).absolute() / "var"


def host_name() -> str:
    """The name of this machine in the catalogue."""
    return str(get("HOST") or socket.gethostname())


def is_catalog_local() -> bool:
    """Whether the catalogue is a file of this machine, so that no other machine can work from it."""
    return str(settings.DATABASES[CATALOG_ALIAS]["ENGINE"]).endswith(".sqlite3")


def is_this_host(name: str) -> bool:
    """Whether a row that names this host is ours.

    A catalogue that is a file has no other host, whatever this machine was called before. An empty
    name is from before hosts were noted, and stands for whoever looks.
    """
    return is_catalog_local() or name in ("", host_name())


def archives_folder() -> Path:
    """Where the built-in destination ``local`` keeps its archives."""
    return home() / "archives"


def destinations() -> list[str]:
    """Names of the places where backups are stored, in order, unless a database says otherwise."""
    return list(dict.fromkeys(str(each) for each in get("DESTINATIONS")))


def scratch_folder() -> Path:
    """Where work in progress lies: plaintext, private, swept."""
    return home() / "scratch"


def quarantine_folder() -> Path:
    """Where uploads of others lie until they are imported or removed: private, swept."""
    return home() / "quarantine"


def state_folder() -> Path:
    """Lock files, the audit copy, and what else must outlive the catalogue."""
    return home() / "state"


def page_digests(identity: str) -> Path:
    """Where the page digests of the last archive of a database are kept, from which deltas are found."""
    return state_folder() / "pages" / f"{identity}.pages"


def roots() -> list[Path]:
    """Folders below which other databases may be added, absolute with links resolved."""
    return [Path(root).expanduser().resolve() for root in get("ROOTS")]


def triage_roots() -> list[Path]:
    """Folders below which the admin may have archives judged, absolute with links resolved."""
    return [Path(root).expanduser().resolve() for root in get("TRIAGE_ROOTS")]


def triage_key_files() -> list[Path]:
    """Where the keys for triage lie, absolute."""
    return [Path(path).expanduser().absolute() for path in get("TRIAGE_KEY_FILES")]


# Who is told


def notify_emails() -> list[str]:
    """Addresses that get mail."""
    given = get("NOTIFY_EMAILS")
    if given is not None:
        return [str(each) for each in given]
    # Names with addresses; addresses alone from Django 6.0 on.
    return [each if isinstance(each, str) else str(each[1]) for each in getattr(settings, "ADMINS", [])]


def webhook_urls() -> list[str]:
    """Addresses that get each outcome; each may hold a token.

    Raises:
        ImproperlyConfigured: the file that holds them cannot be read.
    """
    given = given_or_secret("WEBHOOK_URLS")
    return given.replace(",", " ").split() if isinstance(given, str) else [str(each) for each in given]


def heartbeat_url() -> str:
    """The address of the dead man's switch, or ""; it may hold a token.

    Raises:
        ImproperlyConfigured: the file that holds it cannot be read.
    """
    return str(given_or_secret("HEARTBEAT_URL")).strip()


def metrics_token() -> str:
    """What a monitor must show to read the metrics, or "".

    Raises:
        ImproperlyConfigured: the file that holds it cannot be read.
    """
    return str(given_or_secret("METRICS_TOKEN")).strip()


def given_or_secret(name: str) -> Any:
    """The setting; else ``$BACKUPS_<name>``; else the content of the file in ``$BACKUPS_<name>_FILE``; else "".

    Of the file all counts but the ends of line that it closes with: a passphrase may begin or end with a blank.

    Raises:
        ImproperlyConfigured: the file cannot be read.
    """
    given = get(name) or os.environ.get(f"BACKUPS_{name}")
    path = os.environ.get(f"BACKUPS_{name}_FILE")
    if given or not path:
        return given or ""
    try:
        return Path(path).read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise ImproperlyConfigured(f"The file named by BACKUPS_{name}_FILE cannot be read: {why}.") from exc


def is_token(value: object) -> bool:
    """Whether this can stand in a header, and is long enough not to be guessed."""
    return isinstance(value, str) and len(value) >= 16 and all("!" <= each <= "~" for each in value)


def is_web_address(value: object) -> bool:
    """Whether this is an absolute http or https address that can be called."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
