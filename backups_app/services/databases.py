"""What is under care: the SQLite aliases of the project, and files added by name."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connections, transaction

from .. import conf
from ..core.errors import InputError, NotFoundError, RefusedError
from ..core.files import scratch_folder
from ..core.manifest import Manifest
from ..core.progress import Watch
from ..core.sqlite import SIDECAR_SUFFIXES, database_file, open_live, sidecar
from ..inert_text import fitting
from ..media import checked_folders
from ..models import Database
from ..models.database import UNKNOWN_PATH
from . import audit
from .audit import Actor
from .hosts import here, is_here, require_here

_MAX_TRIES = 5
_LONGEST_ALIAS = 100


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An alias that is not under care, and why."""

    alias: str
    reason: str


def sync_databases() -> list[Skipped]:
    """Bring the rows of this host in line with ``DATABASES``; returns the aliases that are left out.

    A new SQLite alias comes under care, a moved one keeps its identity, one that is gone from
    the settings keeps its backups and leaves care. Rows that name no host, or an earlier name of
    the only one, get its name. One query, however many there are, when nothing has changed.
    """
    rows = {each.alias: each for each in _signed_rows() if each.alias}
    skipped: list[Skipped] = []
    seen: list[str] = []
    for alias in connections:
        if alias == conf.CATALOG_ALIAS:
            continue
        facts = connections.settings[alias]
        reason = _reason_to_skip(alias, _vendor(alias), str(facts["NAME"]))
        if reason:
            skipped.append(Skipped(alias=alias, reason=reason))
            continue
        seen.append(alias)
        _sync_alias(alias, _alias_path(facts), row=rows.get(alias))
    gone = [each.pk for alias, each in rows.items() if alias not in seen and each.is_under_care]
    if gone:
        Database.objects.filter(pk__in=gone).update(is_under_care=False)
    return skipped


def _signed_rows() -> list[Database]:
    """The rows of this host, each with its name."""
    rows = list(Database.objects.filter(here()))
    unsigned = [each.pk for each in rows if each.host != conf.host_name()]
    if unsigned:
        Database.objects.filter(pk__in=unsigned).update(host=conf.host_name())
    return rows


_KNOWN_FROM_ARCHIVES: dict[str, Any] = {"alias": "", "path": UNKNOWN_PATH, "is_under_care": False}
"""What the row of a database has that a rescan made; whoever has its name takes its place."""


def _vendor(alias: str) -> str:
    try:
        return connections[alias].vendor
    except (ImproperlyConfigured, ImportError):  # its driver is not installed here
        return str(connections.settings[alias]["ENGINE"]).rpartition(".")[2]


def _reason_to_skip(alias: str, vendor: str, name: str) -> str:
    if len(alias) > _LONGEST_ALIAS or not alias.isprintable():
        return f"its alias is no name of at most {_LONGEST_ALIAS} plain characters"
    if vendor != "sqlite":
        return f"{vendor} is not SQLite; back it up with its own tools"
    if not name or ":memory:" in name or "mode=memory" in name:
        return "it lives in memory only"
    return ""


def _alias_path(facts: dict[str, Any]) -> str:
    name = str(facts["NAME"])
    if name.startswith("file:"):
        name = unquote(urlsplit(name).path)
    return str(Path(name).absolute())


def _sync_alias(alias: str, path: str, *, row: Database | None) -> None:
    if row is None:
        for _attempt in range(_MAX_TRIES):
            # Another host may take the name at the same moment.
            with suppress(IntegrityError), transaction.atomic(using=conf.CATALOG_ALIAS):
                _add_alias(alias, path)
                return
    elif row.path != path or not row.is_under_care:
        Database.objects.filter(pk=row.pk).update(path=path, is_under_care=True)


def _add_alias(alias: str, path: str) -> None:
    # Another process may have been faster; an added file may have taken the name; a rescan
    # may know it from its archives.
    facts = {"alias": alias, "path": path, "is_under_care": True, "host": conf.host_name()}
    for name in (fitting(f"{alias}@{conf.host_name()}", 200), alias):
        if Database.objects.filter(name=name, **_KNOWN_FROM_ARCHIVES).update(**facts):
            return
    defaults = {"name": _free_name(alias), "path": path}
    Database.objects.get_or_create(alias=alias, host=conf.host_name(), defaults=defaults)


def _free_name(alias: str) -> str:
    """The name of an alias; where that is taken, by a file or on another host, one with an addition."""
    holder = Database.objects.filter(name=alias).first()
    if holder is None or (is_here(holder) and holder.alias == alias):
        return alias
    wanted = f"{alias} (site)" if is_here(holder) else fitting(f"{alias}@{conf.host_name()}", 200)
    if Database.objects.filter(name=wanted).exists():
        return fitting(f"{alias} (site)@{conf.host_name()}", 200)
    return wanted


def databases_under_care() -> list[Database]:
    """All databases under care, by name, on whichever host."""
    return list(Database.objects.filter(is_under_care=True))


def databases_here() -> list[Database]:
    """The databases under care whose files this host holds, by name."""
    return list(Database.objects.filter(here(), is_under_care=True))


def get_database(name: str) -> Database:
    """The database of this name, under care.

    Raises:
        NotFoundError: there is none.
    """
    found = Database.objects.filter(name=name, is_under_care=True).first()
    if found is None:
        names = [each.name for each in databases_under_care()]
        close = get_close_matches(name, names, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Under care: {', '.join(names) or 'nothing yet'}."
        raise NotFoundError(f"There is no database {name!r} under care.", hint)
    return found


def required_tables(database: Database) -> tuple[str, ...]:
    """The tables that must hold rows: those of the row and those of the settings."""
    given = conf.get("REQUIRED_TABLES")
    named = [table for name in names_in_settings(database) for table in given.get(name, ())]
    return tuple(dict.fromkeys([*database.required_tables, *named]))


def still_required(database: Database, manifest: Manifest) -> tuple[str, ...]:
    """Those of the required tables that were required when a backup was made: without them a copy is not proven.

    It cannot become bad by what is asked for later; one that failed passes when it is no longer asked for.
    """
    return tuple(table for table in required_tables(database) if table in manifest.required_tables)


def names_in_settings(database: Database) -> tuple[str, ...]:
    """What this host's settings may call ``database``: its name, and its alias when that is another here."""
    if database.alias and database.alias != database.name and is_here(database):
        return (database.name, database.alias)
    return (database.name,)


def live_path(database: Database) -> Path:
    """The path of a database under care, checked again at each use.

    Raises:
        RefusedError: an added file lies outside BACKUPS["ROOTS"] now, it is none (only archives were imported), or
            it is on another host.
    """
    require_here(database)
    if database.is_imported:
        raise RefusedError(
            f"{database.name!r} has imported archives only, and no live database.", "Name a database under care."
        )
    path = Path(database.path)
    return path if database.alias else require_allowed(path)


def require_allowed(path: Path) -> Path:
    """The path with links resolved, as it was looked at: what is a link now cannot lead elsewhere later.

    Raises:
        RefusedError: it lies outside of the folders in ROOTS. InputError: it cannot be resolved.
    """
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError) as exc:
        raise InputError(f"The path {str(path)!r} cannot be used: {exc}.", "Give the path of a file.") from exc
    if not any(root in resolved.parents for root in conf.roots()):
        allowed = ", ".join(str(root) for root in conf.roots()) or "none"
        raise RefusedError(
            f"{path} lies outside the folders that may be backed up.",
            f"Add its folder to BACKUPS['ROOTS'] in the settings, or to the environment variable BACKUPS_ROOTS "
            f"(allowed now: {allowed}).",
        )
    return resolved


def add_database(
    name: str, path: Path, *, actor: Actor, tables: tuple[str, ...] = (), media: Sequence[Path] = ()
) -> Database:
    """Put another SQLite file under care, with the folders that are to be stored beside it.

    Raises:
        InputError: the name or the file cannot be used. NotFoundError: no file is there.
        RefusedError: the file or a folder lies outside BACKUPS["ROOTS"], or name or file are taken.
        BusyError: the file stayed locked.
    """
    _require_usable_name(name)
    folders = checked_folders(media)
    for each in folders:
        require_allowed(each)
    resolved = require_allowed(database_file(require_allowed(path)))  # it may have become a link in between
    _require_sqlite(resolved)
    _require_free(name, resolved)
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        facts = {
            "path": str(resolved),
            "host": conf.host_name(),
            "required_tables": list(tables),
            "media": [str(each) for each in folders],
            "is_under_care": True,
        }
        Database.objects.filter(name=name, **_KNOWN_FROM_ARCHIVES).update(**facts)
        database, _ = Database.objects.get_or_create(name=name, defaults=facts)
    beside = f", with {', '.join(map(str, folders))}" if folders else ""
    audit.record("add-database", actor=actor, database_name=name, detail=f"{resolved}{beside}")
    return database


def _require_usable_name(name: str) -> None:
    if not name or len(name) > 200 or name != name.strip() or name.startswith("-"):
        raise InputError(
            f"{name!r} cannot be the name of a database.",
            "Use 1 to 200 characters, without blanks at the ends and not starting with '-'.",
        )
    if any(unicodedata.category(each) in ("Cc", "Cs") for each in name):
        raise InputError("The name of a database may not hold control characters.", "Choose a plain name.")


def _require_sqlite(path: Path) -> None:
    with scratch_folder(conf.scratch_folder(), f"add-{uuid.uuid4().hex}") as staging:
        opening = open_live(path, staging=staging, busy_timeout_seconds=conf.get("BUSY_TIMEOUT_SECONDS"), watch=Watch())
        with opening:
            pass


def _require_free(name: str, path: Path) -> None:
    if Database.objects.filter(name=name).exclude(**_KNOWN_FROM_ARCHIVES).exists():
        raise RefusedError(f"The name {name!r} is taken.", "Choose another name.")
    catalog = str(connections[conf.CATALOG_ALIAS].settings_dict["NAME"])
    if conf.is_catalog_local() and _is_same_file(path, Path(catalog)):
        raise RefusedError(
            "The catalogue cannot be under care: a restore would roll its records back.",
            "It can be rebuilt from the manifests beside the archives.",
        )
    for other in databases_here():
        if _is_same_file(path, Path(other.path)):
            raise RefusedError(f"{path} is under care already, as {other.name!r}.", "Use that name.")


def _is_same_file(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file, by links of either kind."""
    try:
        return first.samefile(second)
    except OSError:
        return False


def live_files() -> frozenset[tuple[int, int]]:
    """``(st_dev, st_ino)`` of every file that may be a live database of this process, with what lies beside it.

    The catalogue is among them, and every alias of the site, whether it is under care or not.
    """
    found = set()
    for path in database_files():
        for each in (path, *(sidecar(path, suffix) for suffix in SIDECAR_SUFFIXES)):
            with suppress(OSError, ValueError):
                status = each.stat()
                found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def database_files() -> list[Path]:
    """Every file that may be a live database of this process: under care or not, and the catalogue."""
    named = [Path(path) for path in Database.objects.filter(here()).exclude(path="").values_list("path", flat=True)]
    aliases = [connections.settings[alias] for alias in connections if _vendor(alias) == "sqlite"]
    return named + [Path(_alias_path(facts)) for facts in aliases if facts["NAME"]]


def imported_database(name: str) -> Database:
    """The database of this name that has imported backups only; made when there is none.

    A name that a database with a file has gets an addition. Nobody can back it up or restore into it.
    """
    wanted = "".join(each for each in name if unicodedata.category(each) not in ("Cc", "Cs")).strip(" -")[:150]
    wanted = wanted or "imported"
    facts = {"is_imported": True, "is_under_care": False, "path": "", "host": conf.host_name()}
    for each in (wanted, f"{wanted} (imported)", fitting(f"{wanted} (imported)@{conf.host_name()}", 200)):
        with transaction.atomic(using=conf.CATALOG_ALIAS):
            made, _is_new = Database.objects.get_or_create(name=each, defaults=facts)
        if made.is_imported and is_here(made):
            return made
    raise RefusedError(
        f"The names {wanted!r} and {wanted + ' (imported)'!r} are taken.", "Name a database under care with --into."
    )


def change_policy(
    database: Database,
    *,
    required_tables: list[str],
    freshness_hours: int | None,
    retention: Mapping[str, int | None] | None = None,
    destinations: list[str] | None = None,
    delta_chain: int | Literal["as it is"] | None = "as it is",
    actor: Actor,
) -> None:
    """Change what is asked of a database's backups from now on, and record the change.

    ``destinations``: where they are stored, none of them meaning the setting; None leaves that as it is.
    ``delta_chain``: how many deltas may follow a full archive, None meaning the setting.
    ``retention`` maps rules (:attr:`.Database.KEEP_FIELDS`) to their numbers; rules that it leaves
    out stay as they are.
    """
    rules = {name: number for name, number in (retention or {}).items() if name in Database.KEEP_FIELDS}
    places = {} if destinations is None else {"destinations": destinations}
    deltas = {} if delta_chain == "as it is" else {"delta_chain": delta_chain}
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        Database.objects.filter(pk=database.pk).update(
            required_tables=required_tables, freshness_hours=freshness_hours, **rules, **places, **deltas
        )
        audit.record(
            "change-policy",
            actor=actor,
            database_name=database.name,
            detail=f"required tables {required_tables}, freshness limit {freshness_hours or 'as in the settings'}"
            + _rules_text({**rules, **deltas})
            + ("" if destinations is None else f"; destinations {destinations or 'as in the settings'}"),
        )


def _rules_text(rules: Mapping[str, int | None]) -> str:
    given = [f"{name} {'as in the settings' if number is None else number}" for name, number in rules.items()]
    return f"; {', '.join(given)}" if given else ""
