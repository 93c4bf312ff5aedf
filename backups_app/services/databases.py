"""What is under care: the SQLite aliases of the project, and files added by name."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction

from .. import conf
from ..core.errors import InputError, NotFoundError, RefusedError
from ..core.files import scratch_folder
from ..core.progress import Watch
from ..core.sqlite import SIDECAR_SUFFIXES, database_file, open_live, sidecar
from ..models import Database
from ..models.database import UNKNOWN_PATH
from . import audit
from .audit import Actor


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An alias that is not under care, and why."""

    alias: str
    reason: str


def sync_databases() -> list[Skipped]:
    """Bring the rows in line with ``DATABASES``; returns the aliases that are left out.

    A new SQLite alias comes under care, a moved one keeps its identity, one that is gone from
    the settings keeps its backups and leaves care.
    """
    skipped: list[Skipped] = []
    seen: list[str] = []
    for alias in connections:
        if alias == conf.CATALOG_ALIAS:
            continue
        facts = connections.settings[alias]
        reason = _reason_to_skip(_vendor(alias), str(facts["NAME"]))
        if reason:
            skipped.append(Skipped(alias=alias, reason=reason))
            continue
        seen.append(alias)
        _sync_alias(alias, _alias_path(facts))
    Database.objects.exclude(alias="").exclude(alias__in=seen).filter(is_under_care=True).update(is_under_care=False)
    return skipped


_KNOWN_FROM_ARCHIVES: dict[str, Any] = {"alias": "", "path": UNKNOWN_PATH, "is_under_care": False}
"""What the row of a database has that a rescan made; whoever has its name takes its place."""


def _vendor(alias: str) -> str:
    try:
        return connections[alias].vendor
    except (ImproperlyConfigured, ImportError):  # its driver is not installed here
        return str(connections.settings[alias]["ENGINE"]).rpartition(".")[2]


def _reason_to_skip(vendor: str, name: str) -> str:
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


def _sync_alias(alias: str, path: str) -> None:
    row = Database.objects.filter(alias=alias).first()
    if row is None:
        with transaction.atomic(using=conf.CATALOG_ALIAS):
            # Another process may have been faster; an added file may have taken the name; a rescan
            # may know it from its archives.
            known = Database.objects.filter(name=alias, **_KNOWN_FROM_ARCHIVES)
            if known.update(alias=alias, path=path, is_under_care=True):
                return
            name = alias if not Database.objects.filter(name=alias).exclude(alias=alias).exists() else f"{alias} (site)"
            Database.objects.get_or_create(alias=alias, defaults={"name": name, "path": path})
    elif row.path != path or not row.is_under_care:
        Database.objects.filter(pk=row.pk).update(path=path, is_under_care=True)


def databases_under_care() -> list[Database]:
    """All databases under care, by name."""
    return list(Database.objects.filter(is_under_care=True))


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
    return tuple(dict.fromkeys([*database.required_tables, *conf.get("REQUIRED_TABLES").get(database.name, ())]))


def live_path(database: Database) -> Path:
    """The path of a database under care, checked again at each use.

    Raises:
        RefusedError: an added file lies outside BACKUPS["ROOTS"] now, or it is none: only archives were imported.
    """
    if database.is_imported:
        raise RefusedError(
            f"{database.name!r} has imported archives only, and no live database.", "Name a database under care."
        )
    path = Path(database.path)
    if not database.alias:
        _require_allowed(path)
    return path


def _require_allowed(path: Path) -> None:
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


def add_database(name: str, path: Path, *, actor: Actor, tables: tuple[str, ...] = ()) -> Database:
    """Put another SQLite file under care.

    Raises:
        InputError: the name or the file cannot be used. NotFoundError: no file is there.
        RefusedError: the file lies outside BACKUPS["ROOTS"], or name or file are taken.
        BusyError: the file stayed locked.
    """
    _require_usable_name(name)
    _require_allowed(path)
    resolved = database_file(path)
    _require_sqlite(resolved)
    _require_free(name, resolved)
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        facts = {"path": str(resolved), "required_tables": list(tables), "is_under_care": True}
        Database.objects.filter(name=name, **_KNOWN_FROM_ARCHIVES).update(**facts)
        database, _ = Database.objects.get_or_create(name=name, defaults=facts)
    audit.record("add-database", actor=actor, database_name=name, detail=str(resolved))
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
    if _is_same_file(path, Path(catalog)):
        raise RefusedError(
            "The catalogue cannot be under care: a restore would roll its records back.",
            "It can be rebuilt from the manifests beside the archives.",
        )
    for other in databases_under_care():
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
    named = [Path(path) for path in Database.objects.exclude(path="").values_list("path", flat=True)]
    aliases = [connections.settings[alias] for alias in connections]
    named += [Path(_alias_path(facts)) for facts in aliases if facts["NAME"]]
    found = set()
    for path in named:
        for each in (path, *(sidecar(path, suffix) for suffix in SIDECAR_SUFFIXES)):
            with suppress(OSError, ValueError):
                status = each.stat()
                found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def imported_database(name: str) -> Database:
    """The database of this name that has imported backups only; made when there is none.

    A name that a database with a file has gets an addition. Nobody can back it up or restore into it.
    """
    wanted = "".join(each for each in name if unicodedata.category(each) not in ("Cc", "Cs")).strip(" -")[:150]
    wanted = wanted or "imported"
    for _attempt in range(2):
        with transaction.atomic(using=conf.CATALOG_ALIAS):
            made, _is_new = Database.objects.get_or_create(
                name=wanted, defaults={"is_imported": True, "is_under_care": False, "path": ""}
            )
        if made.is_imported:
            return made
        wanted = f"{wanted} (imported)"
    raise RefusedError(f"The names {name!r} and {wanted!r} are taken.", "Name a database under care with --into.")


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
