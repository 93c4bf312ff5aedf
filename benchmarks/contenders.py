"""All contenders in the order of the tables, the stores that some of them read, and who is compared with whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import dbbackup, ours, repositories, shell, writer
from .contender import Contender, ContenderError, missing_tools

SHELL_PATIENCE_SECONDS = 15
"""Beside a writer the shell's ``.backup`` begins again after each commit: when to stop waiting for it."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """What restores and verifications read: made once for each database, not measured."""

    make: Callable[[Path, Path], object]
    prepare: Callable[[Path, Path], None] | None = None
    tools: tuple[str, ...] = ()
    needs_dbbackup: bool = False


_RESTIC_TOOLS = ("sqlite3", "restic")
_BORG_TOOLS = ("sqlite3", "borg")

STORES = {
    "plain": Store(make=ours.create_with_proof),
    "encrypted": Store(make=ours.create_encrypted),
    "restic": Store(make=repositories.restic_backup, prepare=repositories.restic_init, tools=_RESTIC_TOOLS),
    "borg": Store(make=repositories.borg_create, prepare=repositories.borg_init, tools=_BORG_TOOLS),
    "dbbackup": Store(make=dbbackup.create, needs_dbbackup=True),
}

# Backups

CREATE = Contender(name="create with full proof (ours)", kind="backup", run=ours.create_with_proof, is_ours=True)
CREATE_ENCRYPTED = Contender(
    name="create encrypted with full proof (ours)", kind="backup", run=ours.create_encrypted, is_ours=True
)
COMMAND = Contender(
    name="manage.py backup create, start-up included (ours)",
    kind="backup",
    run=ours.create_by_command,
    prepare=ours.prepare_command,
    is_ours=True,
)
SNAPSHOT = Contender(name="snapshot alone (ours)", kind="backup", run=ours.snapshot_alone, is_ours=True)
CP = Contender(name="cp", kind="backup", run=shell.cp, tools=("cp",))
SHELL = Contender(name="sqlite3 .backup", kind="backup", run=shell.backup, tools=("sqlite3",))
ONE_STEP = Contender(name="backup(pages=-1)", kind="backup", run=shell.backup_in_one_step)
VACUUM = Contender(name="VACUUM INTO", kind="backup", run=shell.vacuum_into)
PIPELINE = Contender(
    name="sqlite3 .backup + zstd -1 -T2", kind="backup", run=shell.backup_and_zstd, tools=("sqlite3", "zstd")
)
AGE_PIPELINE = Contender(
    name="sqlite3 .backup + zstd -1 -T2 + age",
    kind="backup",
    run=shell.backup_zstd_and_age,
    tools=("bash", "sqlite3", "zstd", "age"),
)
RESTIC = Contender(
    name="sqlite3 .backup + restic backup",
    kind="backup",
    run=repositories.restic_backup,
    prepare=repositories.restic_init,
    tools=_RESTIC_TOOLS,
)
RESTIC_CHECKED = Contender(
    name="sqlite3 .backup + restic backup + check --read-data",
    kind="backup",
    run=repositories.restic_backup_and_check,
    prepare=repositories.restic_init,
    tools=_RESTIC_TOOLS,
)
BORG = Contender(
    name="sqlite3 .backup + borg create",
    kind="backup",
    run=repositories.borg_create,
    prepare=repositories.borg_init,
    tools=_BORG_TOOLS,
)
BORG_CHECKED = Contender(
    name="sqlite3 .backup + borg create + check --verify-data",
    kind="backup",
    run=repositories.borg_create_and_check,
    prepare=repositories.borg_init,
    tools=_BORG_TOOLS,
)
DBBACKUP = Contender(name="django-dbbackup with gzip", kind="backup", run=dbbackup.create, needs_dbbackup=True)

# Restores to a new file

EXTRACT = Contender(
    name="extract with full proof (ours)", kind="restore", run=ours.extract, store="plain", is_ours=True
)
ZSTD_D = Contender(name="zstd -d", kind="restore", run=shell.zstd_decompress, store="plain", tools=("zstd",))
EXTRACT_ENCRYPTED = Contender(
    name="extract encrypted with full proof (ours)",
    kind="restore",
    run=ours.extract_encrypted,
    store="encrypted",
    is_ours=True,
)
AGE_ZSTD_D = Contender(
    name="age -d + zstd -d",
    kind="restore",
    run=shell.age_and_zstd_decompress,
    store="encrypted",
    tools=("bash", "age", "zstd"),
)
RESTIC_RESTORE = Contender(
    name="restic restore", kind="restore", run=repositories.restic_restore, store="restic", tools=_RESTIC_TOOLS
)
BORG_EXTRACT = Contender(
    name="borg extract", kind="restore", run=repositories.borg_extract, store="borg", tools=_BORG_TOOLS
)
DBRESTORE = Contender(
    name="django-dbbackup dbrestore with gzip",
    kind="restore",
    run=dbbackup.restore,
    store="dbbackup",
    needs_dbbackup=True,
)

# Verification of what is stored

VERIFY = Contender(name="verify --level full (ours)", kind="verify", run=ours.verify, store="plain", is_ours=True)
VERIFY_ENCRYPTED = Contender(
    name="verify --level full, encrypted (ours)",
    kind="verify",
    run=ours.verify_encrypted,
    store="encrypted",
    is_ours=True,
)
VERIFY_QUICK = Contender(
    name="verify --level quick, encrypted (ours)",
    kind="verify",
    run=ours.verify_stored_bytes,
    store="encrypted",
    is_ours=True,
)
AGE_ZSTD_T = Contender(
    name="age -d + zstd -t",
    kind="verify",
    run=shell.age_and_zstd_test,
    store="encrypted",
    tools=("bash", "age", "zstd"),
)
RESTIC_CHECK = Contender(
    name="restic check --read-data", kind="verify", run=repositories.restic_check, store="restic", tools=_RESTIC_TOOLS
)
BORG_CHECK = Contender(
    name="borg check --verify-data", kind="verify", run=repositories.borg_check, store="borg", tools=_BORG_TOOLS
)

# A writer beside a backup


def _latency(
    name: str,
    create: Callable[[Path, Path], object],
    *,
    is_ours: bool = False,
    tools: tuple[str, ...] = (),
    needs_dbbackup: bool = False,
) -> Contender:
    return Contender(
        name=name,
        kind="latency",
        run=writer.beside_writer(create),
        prepare=writer.prepare_live,
        is_ours=is_ours,
        tools=tools,
        needs_dbbackup=needs_dbbackup,
    )


ALONE = _latency("a writer beside nothing", writer.nobody)
BESIDE_CREATE = _latency("… create with full proof (ours)", ours.create_with_proof, is_ours=True)
BESIDE_CREATE_ENCRYPTED = _latency("… create encrypted with full proof (ours)", ours.create_encrypted, is_ours=True)
BESIDE_CP = _latency("… cp (what it copies is not a backup)", shell.cp, tools=("cp",))
BESIDE_ONE_STEP = _latency("… backup(pages=-1)", shell.backup_in_one_step)
BESIDE_VACUUM = _latency("… VACUUM INTO", shell.vacuum_into)
BESIDE_SHELL = _latency(
    "… sqlite3 .backup, with which restic and borg begin too",
    partial(shell.backup, seconds=SHELL_PATIENCE_SECONDS),
    tools=("sqlite3",),
)
BESIDE_DBBACKUP = _latency("… django-dbbackup with gzip", dbbackup.create, needs_dbbackup=True)

# A writer beside a restore in place

RESTORE = Contender(
    name="restore in place (ours)",
    kind="wait",
    run=writer.restore_in_place_beside_writer,
    prepare=writer.prepare_live_and_staged,
    is_ours=True,
)
SHELL_RESTORE = Contender(
    name="sqlite3 .restore",
    kind="wait",
    run=writer.shell_restore_beside_writer,
    prepare=writer.prepare_live_and_staged,
    tools=("sqlite3",),
)

CONTENDERS = (
    CREATE,
    PIPELINE,
    CREATE_ENCRYPTED,
    AGE_PIPELINE,
    RESTIC,
    RESTIC_CHECKED,
    BORG,
    BORG_CHECKED,
    DBBACKUP,
    COMMAND,
    SNAPSHOT,
    ONE_STEP,
    SHELL,
    VACUUM,
    CP,
    EXTRACT,
    ZSTD_D,
    EXTRACT_ENCRYPTED,
    AGE_ZSTD_D,
    RESTIC_RESTORE,
    BORG_EXTRACT,
    DBRESTORE,
    VERIFY,
    VERIFY_ENCRYPTED,
    VERIFY_QUICK,
    AGE_ZSTD_T,
    RESTIC_CHECK,
    BORG_CHECK,
    ALONE,
    BESIDE_CREATE,
    BESIDE_CREATE_ENCRYPTED,
    BESIDE_CP,
    BESIDE_ONE_STEP,
    BESIDE_VACUUM,
    BESIDE_SHELL,
    BESIDE_DBBACKUP,
    RESTORE,
    SHELL_RESTORE,
)

RATIOS: tuple[tuple[Contender, Contender, float | None], ...] = (
    (SNAPSHOT, ONE_STEP, 1.1),
    (CREATE, PIPELINE, 1.5),
    (CREATE_ENCRYPTED, AGE_PIPELINE, 1.2),
    (CREATE_ENCRYPTED, RESTIC_CHECKED, 1.0),
    (CREATE_ENCRYPTED, RESTIC, None),
    (CREATE_ENCRYPTED, BORG_CHECKED, None),
    (CREATE_ENCRYPTED, BORG, None),
    (CREATE_ENCRYPTED, DBBACKUP, None),
    (COMMAND, AGE_PIPELINE, None),
    (CREATE, SHELL, None),
    (CREATE, VACUUM, None),
    (CREATE, CP, None),
    (SNAPSHOT, SHELL, None),
    (SNAPSHOT, VACUUM, None),
    (SNAPSHOT, CP, None),
    (EXTRACT, ZSTD_D, None),
    (EXTRACT_ENCRYPTED, AGE_ZSTD_D, None),
    (EXTRACT_ENCRYPTED, RESTIC_RESTORE, None),
    (EXTRACT_ENCRYPTED, BORG_EXTRACT, None),
    (EXTRACT_ENCRYPTED, DBRESTORE, None),
    (VERIFY_ENCRYPTED, AGE_ZSTD_T, None),
    (VERIFY_ENCRYPTED, RESTIC_CHECK, None),
    (VERIFY_ENCRYPTED, BORG_CHECK, None),
    (VERIFY_QUICK, RESTIC_CHECK, None),
    (RESTORE, CP, 2.0),
    (RESTORE, SHELL_RESTORE, None),
)
"""Of whom to whom, and the aim."""


def missing(contender: Contender | Store) -> list[str]:
    """What is not installed that it needs."""
    lacking = missing_tools(contender.tools)
    if contender.needs_dbbackup and not dbbackup.is_installed():
        lacking.append("django-dbbackup")
    return lacking


def make_store(name: str, database: Path, folder: Path) -> None:
    """Fill the store in the empty ``folder``.

    Raises:
        ContenderError: something that it needs is missing or fails.
    """
    store = STORES[name]
    if lacking := missing(store):
        raise ContenderError(f"not installed: {', '.join(lacking)}")
    if store.prepare is not None:
        store.prepare(database, folder)
    store.make(database, folder)


def named(name: str) -> Contender:
    """The contender of that name.

    Raises:
        ContenderError: there is none.
    """
    for contender in CONTENDERS:
        if contender.name == name:
            return contender
    raise ContenderError(f"there is no contender {name!r}")
