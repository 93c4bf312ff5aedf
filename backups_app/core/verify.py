"""Judging a copy: a list of checks, each with its evidence, and one verdict.

Levels. ``quick``: the stored bytes are there and have the digest that was proven. ``full``: they
also decrypt and decompress to the proven database, which is sound (``integrity_check``), and whose
census and required tables are as they must be. ``drill``: a restore to a new file, timed, with all checks of
``full`` and the site's own. ``creation`` is the proof taken when a backup is made.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .archive import ENCRYPTION, Keys, OpenStored, ReadArchive, read_archive, read_chunks, unpack_archive
from .census import Census, quoted, take_census
from .delta import PatchedFile
from .errors import (
    SQLITE_ERRORS,
    KeyMissingError,
    UnreachableError,
    VerificationError,
    from_sqlite,
    primary_code,
    translated,
)
from .files import require_free_space
from .links import Link, patch_of, require_linked
from .manifest import Delta, Manifest
from .pages import PageRoot, digests_of_file
from .progress import Watch
from .sqlite import open_snapshot

Level = Literal["creation", "quick", "full", "drill"]
Verdict = Literal["passed", "failed", "unreachable", "key_missing"]
_MAX_LISTED = 10

# Errors of the machine at that moment (https://sqlite.org/rescode.html): a good copy must not be called bad for them.
_NOT_OF_THE_FILE = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
)

STORED_BYTES = "stored bytes"
"""Name of the check that the stored bytes are those that were written."""

CONTENT = "content digest"
"""Name of the check that what is inside is the database that was proven."""

LINKS = "links below"
"""Name of the check that the stored bytes of the archives that a delta builds on are right."""

PAGES = "pages"
"""Name of the check that a delta holds the pages that make its base the new database."""

SITE_CHECK = "site check "
"""What the names of the site's own checks begin with: they judge the data, not the copy of it."""


NO_KEYS = Keys()
"""For archives that are not encrypted; an encrypted one stays locked."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question asked of a copy and the answer found."""

    name: str
    ok: bool
    evidence: str
    is_advisory: bool = False
    """A finding about the source's own data. It is shown, and does not spoil the verdict."""

    def as_dict(self) -> dict[str, object]:
        """The check as JSON types."""
        return {"name": self.name, "ok": self.ok, "evidence": self.evidence, "advisory": self.is_advisory}


class LockedError(KeyMissingError):
    """No key opens an archive whose stored bytes are those that were written."""

    def __init__(self, cause: KeyMissingError, *, checks: list[Check]) -> None:
        super().__init__(cause.message, cause.hint)
        self.checks = checks
        """What was found before."""


def failures(checks: list[Check]) -> list[Check]:
    """The checks that spoil a verdict."""
    return [check for check in checks if not check.ok and not check.is_advisory]


def reason_of(checks: list[Check]) -> str:
    """Why the checks failed, in one line; empty when they passed."""
    return "; ".join(f"{check.name}: {check.evidence}" for check in failures(checks))


def verdict_for(exc: VerificationError | KeyMissingError) -> Verdict:
    """The verdict that an error stands for: not reaching or not opening is never corruption."""
    if isinstance(exc, UnreachableError):
        return "unreachable"
    return "key_missing" if isinstance(exc, KeyMissingError) else "failed"


def check_database(
    path: Path,
    *,
    expected: Census | None,
    required_tables: tuple[str, ...] = (),
    is_thorough: bool,
    watch: Watch,
) -> list[Check]:
    """Check a database file that nobody writes, treating it as hostile.

    ``is_thorough`` runs ``integrity_check`` and ``foreign_key_check`` in place of ``quick_check``.
    Without an ``expected`` census only its being countable is checked. Never raises for what it
    finds in the file.

    Raises:
        DiskFullError, BackupError: the disk or the memory kept it from being judged, which says
            nothing about the content. CancelledError, DeadlineError: from ``watch``.
    """
    if path.stat().st_size == 0:
        return _check_empty_file(expected, required_tables)
    with translated("checking the copy"), open_snapshot(path) as connection:
        return check_connection(
            connection, expected=expected, required_tables=required_tables, is_thorough=is_thorough, watch=watch
        )


def has_census(path: Path, expected: Census, *, watch: Watch) -> bool:
    """Whether a database file that nobody writes has exactly this census, sound or not.

    Raises:
        VerificationError: its schema cannot be read. BackupError: from the disk.
            CancelledError, DeadlineError: from ``watch``.
    """
    if path.stat().st_size == 0:
        return expected.page_count == 0
    with translated("counting the rows of the copy"), open_snapshot(path) as connection:
        return not expected.differences(take_census(connection, watch=watch))


def check_connection(
    connection: sqlite3.Connection,
    *,
    expected: Census | None,
    required_tables: tuple[str, ...] = (),
    is_thorough: bool,
    watch: Watch,
) -> list[Check]:
    """The checks of :func:`check_database` on a connection whose view does not change meanwhile.

    Raises: as :func:`check_database`.
    """
    checks: list[Check] = []
    try:
        with watch.over(connection):
            checks.append(check_structure(connection, is_thorough=is_thorough))
            if is_thorough:
                checks.append(_check_foreign_keys(connection))
        found = take_census(connection, watch=watch)
    except SQLITE_ERRORS as exc:
        error = from_sqlite(exc, doing="checking the copy")
        if primary_code(exc) in _NOT_OF_THE_FILE:
            raise error from exc
        checks.append(Check(name="readable", ok=False, evidence=error.message))
        return checks
    checks.extend(_check_census(found, expected, required_tables))
    return checks


def _check_empty_file(expected: Census | None, required_tables: tuple[str, ...]) -> list[Check]:
    is_expected = expected is None or expected.page_count == 0
    checks = [
        Check(name="census", ok=is_expected, evidence="the file has no page: an empty database"),
    ]
    if required_tables:
        checks.append(Check(name="required tables", ok=False, evidence="the database has no tables"))
    return checks


def _check_census(found: Census, expected: Census | None, required_tables: tuple[str, ...]) -> list[Check]:
    summary = f"{found.rows:,} rows in {len(found.tables):,} tables"
    differences = expected.differences(found) if expected else []
    differences += [f"table {name}: its pages are damaged" for name in found.unreadable]
    origin = ", as counted in the source" if expected else ""
    evidence = _listed(differences) if differences else summary + origin
    checks = [Check(name="census", ok=not differences, evidence=evidence)]
    if required_tables:
        empty = found.empty_tables(required_tables)
        checks.append(
            Check(
                name="required tables",
                ok=not empty,
                evidence=f"no rows in {_listed(empty)}" if empty else f"all {len(required_tables)} hold rows",
            )
        )
    return checks


def _listed(lines: list[str]) -> str:
    shown = ", ".join(lines[:_MAX_LISTED])
    return shown if len(lines) <= _MAX_LISTED else f"{shown}, and {len(lines) - _MAX_LISTED:,} more"


def check_structure(connection: sqlite3.Connection, *, is_thorough: bool) -> Check:
    """SQLite's own check of the file's structure: ``integrity_check``, or the faster ``quick_check``.

    Raises:
        sqlite3.Error, UnicodeError: the check could not run to its end.
    """
    pragma = "integrity_check" if is_thorough else "quick_check"
    try:
        lines = _pragma_lines(connection, f"PRAGMA {pragma}({_MAX_LISTED})")
    except sqlite3.OperationalError as exc:
        if primary_code(exc) != sqlite3.SQLITE_ERROR:
            raise
        # An index or a generated column calls a function that only the application has.
        return _check_structure_by_table(connection, pragma, reason=str(exc))
    except sqlite3.DatabaseError as exc:
        return Check(name=pragma, ok=False, evidence=str(exc))
    return Check(name=pragma, ok=lines == ["ok"], evidence=_listed(lines))


def _check_structure_by_table(connection: sqlite3.Connection, pragma: str, *, reason: str) -> Check:
    names = [str(row[0]) for row in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
    wrong: list[str] = []
    skipped: list[str] = []
    for name in names:
        try:
            lines = _pragma_lines(connection, f"PRAGMA {pragma}({quoted(name)})")
        except (sqlite3.OperationalError, UnicodeEncodeError) as exc:
            if isinstance(exc, sqlite3.Error) and primary_code(exc) != sqlite3.SQLITE_ERROR:
                raise
            skipped.append(name)
        else:
            wrong.extend(line for line in lines if line != "ok")
    if wrong:
        return Check(name=pragma, ok=False, evidence=_listed(wrong))
    evidence = f"ok for {len(names) - len(skipped)} tables; not possible here for {_listed(skipped)} ({reason})"
    return Check(name=pragma, ok=True, evidence=evidence)


def _pragma_lines(connection: sqlite3.Connection, statement: str) -> list[str]:
    # Some messages carry line breaks; one finding is one line here.
    return [" ".join(str(row[0]).split()) for row in connection.execute(statement)]


def _check_foreign_keys(connection: sqlite3.Connection) -> Check:
    name = "foreign_key_check"
    try:
        found: dict[tuple[str, str], int] = {}
        for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check"):
            found[(str(table), str(parent))] = found.get((str(table), str(parent)), 0) + 1
    except sqlite3.OperationalError as exc:
        if primary_code(exc) != sqlite3.SQLITE_ERROR:
            raise
        return Check(name=name, ok=False, is_advisory=True, evidence=f"could not run: {exc}")
    if not found:
        return Check(name=name, ok=True, evidence="no row refers to a missing one")
    lines = [f"{rows:,} rows of {table} refer to missing rows of {parent}" for (table, parent), rows in found.items()]
    return Check(name=name, ok=False, is_advisory=True, evidence=_listed(lines))


def check_reading(
    read: ReadArchive,
    *,
    archive_bytes: int,
    archive_sha256: str,
    content_bytes: int,
    sha256: str,
    content_name: str = CONTENT,
    prefix: str = "",
) -> list[Check]:
    """Compare one complete reading of a stored archive with what it must be.

    ``prefix`` begins the names of the checks, where they are not about the database.

    Raises:
        LockedError: no key opens it, and its stored bytes are right.
    """
    checks = [
        _check_stored(read.archive_bytes, read.archive_sha256, archive_bytes, archive_sha256, prefix=prefix),
    ]
    if read.locked is not None:
        if failures(checks):  # damage, whatever the key: what wraps it may be what is damaged
            return checks
        raise LockedError(read.locked, checks=checks) from read.locked
    if read.damage is not None:
        checks.append(Check(name=f"{prefix}decompression", ok=False, evidence=read.damage.message))
        return checks
    name = prefix + content_name
    checks.append(_check_content(read.content_bytes, read.sha256, content_bytes, sha256, name=name))
    return checks


def _check_content(found_bytes: int, found_sha256: str, size_bytes: int, sha256: str, *, name: str) -> Check:
    is_same = (found_bytes, found_sha256) == (size_bytes, sha256)
    return Check(
        name=name,
        ok=is_same,
        evidence=f"{found_bytes:,} bytes, SHA-256 {found_sha256}"
        if is_same
        else f"{found_bytes:,} bytes with SHA-256 {found_sha256}, expected {size_bytes:,} with {sha256}",
    )


def _check_stored(
    found_bytes: int, found_sha256: str, archive_bytes: int, archive_sha256: str, *, prefix: str
) -> Check:
    name = prefix + STORED_BYTES
    if found_bytes != archive_bytes:
        evidence = f"{found_bytes:,} bytes are stored, {archive_bytes:,} were written"
        return Check(name=name, ok=False, evidence=evidence)
    if found_sha256 != archive_sha256:
        evidence = f"SHA-256 {found_sha256}, expected {archive_sha256}"
        return Check(name=name, ok=False, evidence=evidence)
    return Check(name=name, ok=True, evidence=f"{found_bytes:,} bytes, SHA-256 {found_sha256}")


def verify_quick(
    open_stored: OpenStored, manifest: Manifest, *, watch: Watch, below: Sequence[Link] = ()
) -> list[Check]:
    """Hash the stored bytes and compare them with the manifest; decompresses nothing.

    Those of the archives ``below``, which a delta builds on, are hashed as well.

    Raises:
        UnreachableError: the store does not answer. VerificationError: another chain is below.
            CancelledError, DeadlineError: from ``watch``.
    """
    require_linked(manifest, below)
    own = check_stored(open_stored, manifest, watch=watch)
    return [own, *check_below(below, watch=watch)]


def check_packed(open_stored: OpenStored, manifest: Manifest, *, watch: Watch, keys: Keys = NO_KEYS) -> list[Check]:
    """Read one stored archive to its last byte: the stored bytes, and what is inside, whatever it builds on.

    Nothing is written anywhere.

    Raises:
        LockedError: the stored bytes are right, and no key opens them. UnreachableError: the store does
            not answer. CancelledError, DeadlineError: from ``watch``.
    """
    delta = manifest.delta
    packed_bytes = delta.bytes if delta else manifest.size_bytes
    with open_stored() as stored:
        read = read_archive(
            stored,
            limit_bytes=packed_bytes,
            total_bytes=manifest.archive_bytes,
            watch=watch,
            keys=keys_for(manifest.encryption, keys),
        )
    return check_reading(
        read,
        archive_bytes=manifest.archive_bytes,
        archive_sha256=manifest.archive_sha256,
        content_bytes=packed_bytes,
        sha256=delta.sha256 if delta else manifest.sha256,
        content_name="delta digest" if delta else CONTENT,
    )


def check_below(below: Sequence[Link], *, watch: Watch) -> list[Check]:
    """Hash the stored bytes of the archives that a delta builds on; one check for all while they are right.

    Raises:
        UnreachableError: the store lacks one, or does not answer. CancelledError, DeadlineError.
    """
    for each in below:
        try:
            check = check_stored(each.open_stored, each.manifest, watch=watch)
        except UnreachableError as exc:
            raise UnreachableError(f"It builds on backup {each.manifest.id}. {exc.message}", exc.hint) from exc
        if not check.ok:
            return [replace(check, name=LINKS, evidence=f"backup {each.manifest.id}: {check.evidence}")]
    evidence = f"the stored bytes of the {len(below):,} archives below are right"
    return [Check(name=LINKS, ok=True, evidence=evidence)] if below else []


def check_stored(open_stored: OpenStored, manifest: Manifest, *, watch: Watch) -> Check:
    """Hash the stored bytes of one archive, whatever it builds on.

    Raises:
        UnreachableError: the store does not answer. CancelledError, DeadlineError: from ``watch``.
    """
    return check_stored_bytes(
        open_stored, archive_bytes=manifest.archive_bytes, archive_sha256=manifest.archive_sha256, watch=watch
    )


def check_stored_bytes(
    open_stored: OpenStored, *, archive_bytes: int, archive_sha256: str, watch: Watch, prefix: str = ""
) -> Check:
    """Hash a stored object and compare it with what was written; ``prefix`` begins the name of the check.

    Raises: as :func:`check_stored`.
    """
    found_bytes, found_sha256 = hash_stored(open_stored, total_bytes=archive_bytes, watch=watch)
    return _check_stored(found_bytes, found_sha256, archive_bytes, archive_sha256, prefix=prefix)


def hash_stored(open_stored: OpenStored, *, total_bytes: int, watch: Watch) -> tuple[int, str]:
    """Size and SHA-256 of stored bytes; ``total_bytes`` is for progress only.

    Raises: as :func:`check_stored`.
    """
    digest, found_bytes = hashlib.sha256(), 0
    with open_stored() as stored:
        for piece in read_chunks(stored, phase="read", total_bytes=total_bytes, watch=watch):
            digest.update(piece)
            found_bytes += len(piece)
    return found_bytes, digest.hexdigest()


def verify_full(
    open_stored: OpenStored,
    manifest: Manifest,
    *,
    required_tables: tuple[str, ...],
    scratch: Path,
    watch: Watch,
    keys: Keys = NO_KEYS,
    below: Sequence[Link] = (),
) -> list[Check]:
    """Unpack the archive into ``scratch`` (a private folder) and check everything the manifest says.

    The unpacked file is removed before this returns.

    Raises:
        UnreachableError: the store does not answer. DiskFullError: no room in ``scratch``.
        LockedError: the stored bytes are right, and no key opens them.
        CancelledError, DeadlineError: from ``watch``.
    """
    unpacked = scratch / "verify.sqlite3"
    try:
        checks = unpack(open_stored, manifest, unpacked, watch=watch, keys=keys, below=below)
        if not failures(checks):
            checks += check_database(
                unpacked,
                expected=manifest.census,
                required_tables=required_tables,
                is_thorough=True,
                watch=watch,
            )
        return checks
    finally:
        unpacked.unlink(missing_ok=True)


def unpack(
    open_stored: OpenStored,
    manifest: Manifest,
    target: Path,
    *,
    watch: Watch,
    keys: Keys = NO_KEYS,
    below: Sequence[Link] = (),
) -> list[Check]:
    """Decrypt and decompress a stored archive into the new private file ``target``; compare all digests.

    A delta is put into the archives ``below`` it, the full one first; at each of them the content is
    proven before the next one is put in. ``target`` is synced. Its content is proven only when every
    returned check is ok.

    Raises:
        LockedError: the stored bytes are right, and no key opens them.
        VerificationError: another chain is below. UnreachableError, DiskFullError, BackupError,
            CancelledError, DeadlineError.
    """
    require_linked(manifest, below)
    links = [*below, Link(open_stored=open_stored, manifest=manifest, keys=keys)]
    needed_bytes = max(each.manifest.size_bytes for each in links)
    require_free_space(target.parent, needed_bytes, purpose="the unpacked database")
    checks = _unpack_full(links[0], target, watch=watch)
    if len(links) > 1:
        checks = _named(checks, links[0].manifest)
        if not failures(checks):
            checks += _put_deltas(links, target, watch=watch)
    return checks


def _unpack_full(link: Link, target: Path, *, watch: Watch) -> list[Check]:
    manifest = link.manifest
    read = unpack_archive(
        link.open_stored,
        target,
        limit_bytes=manifest.size_bytes,
        total_bytes=manifest.archive_bytes,
        watch=watch,
        keys=keys_for(manifest.encryption, link.keys),
    )
    return check_reading(
        read,
        archive_bytes=manifest.archive_bytes,
        archive_sha256=manifest.archive_sha256,
        content_bytes=manifest.size_bytes,
        sha256=manifest.sha256,
    )


def _put_deltas(links: Sequence[Link], target: Path, *, watch: Watch) -> list[Check]:
    """Put the deltas of a chain into its unpacked full archive, up to the first that is not right."""
    checks: list[Check] = []
    deltas = [(each, each.manifest.delta) for each in links if each.manifest.delta]
    with PageRoot(target.parent) as root:
        root.fill(digests_of_file(target, page_size=deltas[0][1].page_size, watch=watch))
        patched = PatchedFile(target, root)
        for link, delta in deltas:
            found = _put_delta(link, delta, patched, watch=watch)
            checks += found if link is links[-1] else _named(found, link.manifest)
            if failures(checks):
                return checks
    return [*checks, _check_file_digest(target, links[-1].manifest, watch=watch)]


def _put_delta(link: Link, delta: Delta, patched: PatchedFile, *, watch: Watch) -> list[Check]:
    manifest = link.manifest
    read, problem, pages_sha256 = patched.apply(
        link.open_stored,
        patch_of(manifest, delta),
        packed_bytes=delta.bytes,
        total_bytes=manifest.archive_bytes,
        watch=watch,
        keys=keys_for(manifest.encryption, link.keys),
    )
    checks = check_reading(
        read,
        archive_bytes=manifest.archive_bytes,
        archive_sha256=manifest.archive_sha256,
        content_bytes=delta.bytes,
        sha256=delta.sha256,
        content_name="delta digest",
    )
    if not failures(checks):
        checks.append(check_pages(problem, found=pages_sha256, expected=delta.pages_sha256, pages=delta.pages))
    return checks


def check_pages(problem: str, *, found: str, expected: str, pages: int) -> Check:
    """Whether a delta, put into the pages of its base, gave those of its own database."""
    if problem:
        return Check(name=PAGES, ok=False, evidence=f"it is no delta as it must be: {problem}")
    if found != expected:
        return Check(name=PAGES, ok=False, evidence=f"root {found} of the page digests, expected {expected}")
    return Check(name=PAGES, ok=True, evidence=f"{pages:,} pages, root {found} of all page digests")


def _check_file_digest(path: Path, manifest: Manifest, *, watch: Watch) -> Check:
    digest, found_bytes = hashlib.sha256(), 0
    with translated("reading the unpacked database"), open(path, "rb", buffering=0) as stream:
        for piece in read_chunks(stream, phase="check", total_bytes=manifest.size_bytes, watch=watch):
            digest.update(piece)
            found_bytes += len(piece)
    return _check_content(found_bytes, digest.hexdigest(), manifest.size_bytes, manifest.sha256, name=CONTENT)


def _named(checks: list[Check], manifest: Manifest) -> list[Check]:
    """The checks of an archive below, told apart from those of the archive itself."""
    return [replace(each, name=f"{each.name} of backup {manifest.id}") for each in checks]


def keys_for(encryption: str | None, keys: Keys) -> Keys | None:
    """The keys that an archive is read with, None for a plain one.

    Raises:
        VerificationError: the manifest names an encryption that is not known here.
    """
    if encryption is None:
        return None
    if encryption != ENCRYPTION:
        raise VerificationError(
            f"The manifest names an encryption that this version does not know: {encryption!r}.",
            "Use a newer version, or treat the manifest as altered.",
        )
    return keys
