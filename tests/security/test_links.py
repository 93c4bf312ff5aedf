"""A path that turns into a link while it is used leads no writing, reading or deletion elsewhere.

A thread exchanges the name for a link to a victim, and back, as fast as it can, for a bounded time. What must hold
at the end: the victim is as it was, and nothing of it was taken for what was asked for.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from backups_app.core.errors import BackupError
from backups_app.core.extract import extract_file
from backups_app.core.files import publish_new_file, replace_synced, scratch_folder, write_synced
from backups_app.core.progress import Watch
from backups_app.core.triage.foreign import UnreadableError, opened_plainly
from backups_app.core.triage.removal import remove_unchanged
from backups_app.destinations import LocalDestination
from backups_app.models import Database
from backups_app.services import audit
from backups_app.services.databases import add_database, live_path
from backups_app.services.triage import judge_files, plan_of, triage_options
from tests.conftest import ACTOR
from tests.support import build_shop, connected, names_in, store

SECONDS = 1.0
VICTIM = b"of somebody else, and not to be touched"


@contextmanager
def flipping(path: Path, *, plain: bytes | None, victim: Path) -> Iterator[None]:
    """Until the block ends, ``path`` is now a plain file (or nothing), now a link to ``victim``."""
    done = threading.Event()
    side = path.with_name(f".flip-{path.name}")

    def flip() -> None:
        while not done.is_set():
            with suppress(OSError):
                side.unlink()
            with suppress(OSError):
                side.symlink_to(victim)
                side.replace(path)
            if plain is None:
                with suppress(OSError):
                    path.unlink()
            else:
                with suppress(OSError):
                    side.write_bytes(plain)
                    side.replace(path)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with suppress(OSError):
            side.unlink()


def tries(is_seen: Callable[[], object] = lambda: True) -> Iterator[int]:
    """One attempt after the other, for a second, and a few at least; at most a minute until all is seen."""
    started_at, number = time.monotonic(), 0
    while (
        time.monotonic() < started_at + SECONDS
        or number < 20
        or (not is_seen() and time.monotonic() < started_at + 60 * SECONDS)
    ):
        yield number
        number += 1


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    path = folder / "victim"
    path.write_bytes(VICTIM)
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that others may write to."""
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


def test_the_flipping_is_fast_enough_to_be_met(shared: Path, victim: Path):
    seen = set()
    with flipping(shared / "name", plain=b"plain", victim=victim):
        for _ in tries():
            with suppress(OSError):
                seen.add((shared / "name").read_bytes())
    assert seen >= {b"plain", VICTIM}


@pytest.mark.parametrize("write", [write_synced, replace_synced], ids=["new", "replaced"])
def test_a_file_that_we_write_never_goes_through_a_link(write: Any, shared: Path, victim: Path):
    """keygen --out, prove --out, keys --kit; state files."""
    with flipping(shared / "made.key", plain=None, victim=victim):
        for _ in tries():
            with suppress(BackupError, OSError):
                write(shared / "made.key", b"a secret key")
    assert victim.read_bytes() == VICTIM
    assert names_in(victim.parent) == {"victim"}


def test_a_file_that_is_published_never_goes_through_a_link(shared: Path, victim: Path, tmp_path: Path):
    """restore --to, and every archive of the store."""
    published = 0
    with flipping(shared / "new.sqlite3", plain=None, victim=victim):
        for number in tries():
            draft = tmp_path / f"draft-{number}"
            draft.write_bytes(b"the database")
            with suppress(BackupError):
                publish_new_file(draft, shared / "new.sqlite3")
                published += 1
    assert published
    assert victim.read_bytes() == VICTIM
    assert names_in(victim.parent) == {"victim"}


def test_a_restore_to_a_file_never_goes_through_a_link(shared: Path, victim: Path, tmp_path: Path):
    stored = store(build_shop(tmp_path / "shop.sqlite3"), tmp_path / "stored").archive
    with flipping(shared / "new.sqlite3", plain=None, victim=victim):
        for _ in tries():
            with suppress(BackupError):
                extract_file(stored, shared / "new.sqlite3", watch=Watch())
    assert victim.read_bytes() == VICTIM
    assert {each for each in names_in(shared) if "partial" in each} == set()


def test_triage_never_reads_through_a_link(shared: Path, victim: Path):
    read = []
    with flipping(shared / "old.db", plain=b"an archive", victim=victim):
        for _ in tries():
            with suppress(UnreadableError), opened_plainly(shared / "old.db", exclude=()) as stored:
                read.append(stored.read())
    assert set(read) <= {b"an archive", b""}, "the file may be met half-written, but never another one"
    assert b"an archive" in read


@pytest.mark.usefixtures("home", "db_catalog")
def test_triage_never_deletes_through_a_link_or_what_was_exchanged(shared: Path, victim: Path):
    useless = shared / "empty.db"
    with connected(useless) as connection:
        connection.execute("CREATE TABLE product (id INTEGER PRIMARY KEY)")
    content = useless.read_bytes()
    (judged,) = judge_files(plan_of([useless]), options=triage_options(), watch=Watch())
    assert judged.is_useless
    keep = shared / "keep.db"
    os.link(useless, keep)
    with flipping(useless, plain=VICTIM + content, victim=victim):
        for _ in tries():
            with suppress(BackupError):
                remove_unchanged(judged, watch=Watch())
    assert victim.read_bytes() == VICTIM
    assert keep.read_bytes() == content


def test_a_destination_never_reads_or_writes_through_a_link(shared: Path, victim: Path, tmp_path: Path):
    destination = LocalDestination(shared)
    read = []
    with flipping(shared / "object", plain=b"stored", victim=victim):
        for number in tries():
            with suppress(BackupError), destination.open("object") as stream:
                read.append(stream.read())
            draft = tmp_path / f"draft-{number}"
            draft.write_bytes(b"ours")
            with suppress(BackupError):
                destination.store(draft, "object")
            with suppress(BackupError):
                destination.remove("object")
    assert VICTIM not in read
    assert victim.read_bytes() == VICTIM
    assert names_in(victim.parent) == {"victim"}


@contextmanager
def flipping_folder(path: Path, *, plain: Path, victim: Path) -> Iterator[None]:
    """Until the block ends, ``path`` is now the folder that was at ``plain``, now a link to the folder ``victim``.

    In between it is nothing; a folder that is made there meanwhile is moved away.
    """
    done = threading.Event()
    side = plain.with_name("side")
    side.symlink_to(victim)

    def flip() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            for old, new in ((plain, path), (path, plain), (side, path), (path, side)):
                try:
                    old.rename(new)
                except OSError:  # one was made, which neither a folder nor a link takes the place of
                    with suppress(OSError):
                        path.rename(plain.with_name(f"made-{number}") if not path.is_symlink() else side)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_destination_never_reads_or_writes_through_a_link_to_a_folder(victim: Path, tmp_path: Path):
    root, plain, folder = tmp_path / "archives", tmp_path / "plain", victim.parent
    root.mkdir()
    plain.mkdir()
    (plain / "victim").write_bytes(b"stored")
    os.utime(folder, (1, 1))
    destination = LocalDestination(root)
    seen: set[object] = set()
    expected = {b"stored", "stored", "is a link", ("shop", False), ("shop/victim", True)}
    with flipping_folder(root / "shop", plain=plain, victim=folder):
        for number in tries(lambda: seen >= expected):
            with suppress(BackupError), destination.open("shop/victim") as stream:
                seen.add(stream.read())
            with suppress(BackupError):
                seen.update((each.name, each.is_plain) for each in destination.list())
            draft = tmp_path / f"draft-{number}"
            draft.write_bytes(b"ours")
            try:
                destination.store(draft, f"shop/new-{number}")
                seen.add("stored")
            except BackupError as exc:
                seen.add("is a link" if "is a link" in str(exc) else "refused otherwise")
            draft.unlink()
    assert seen >= expected
    assert VICTIM not in seen
    assert victim.read_bytes() == VICTIM
    assert names_in(folder) == {"victim"}
    assert folder.stat().st_mtime == 1, "nothing was made there, not even for a moment"


def test_a_destination_never_removes_through_a_link_to_a_folder(victim: Path, tmp_path: Path):
    root, plain = tmp_path / "archives", tmp_path / "plain"
    root.mkdir()
    plain.mkdir()
    destination = LocalDestination(root)
    seen = set()
    with flipping_folder(root / "shop", plain=plain, victim=victim.parent):
        for _ in tries(lambda: len(seen) == 2):
            try:
                destination.remove("shop/victim")
                seen.add("removed")
            except BackupError as exc:
                assert "is a link" in str(exc)  # noqa: PT017 - the other outcome is as good
                seen.add("refused")
            assert victim.exists()
    assert seen == {"removed", "refused"}
    assert victim.read_bytes() == VICTIM


@pytest.mark.usefixtures("db_catalog")
def test_no_database_outside_the_roots_comes_under_care_by_a_link(tmp_path: Path, settings: Any):
    roots, outside = tmp_path / "roots", tmp_path / "outside"
    roots.mkdir()
    outside.mkdir()
    secret = build_shop(outside / "secret.sqlite3", journal_mode="delete")
    plain = secret.read_bytes()
    settings.BACKUPS = {"HOME": tmp_path / "home", "ROOTS": [roots]}
    with flipping(roots / "shop.sqlite3", plain=plain, victim=secret):
        for number in tries():
            with suppress(BackupError):
                database = add_database(f"shop-{number}", roots / "shop.sqlite3", actor=ACTOR)
                Database.objects.filter(pk=database.pk).update(path=f"/none/{number}")
                assert Path(database.path).parent == roots
            with suppress(BackupError):
                found = live_path(Database(name="x", path=str(roots / "shop.sqlite3")))
                assert roots in found.parents
    assert secret.read_bytes() == plain


def test_scratch_is_not_made_through_links_that_lie_in_wait(shared: Path, victim: Path):
    (shared / "token").symlink_to(victim.parent)
    with pytest.raises(FileExistsError), scratch_folder(shared, "token"):
        pass
    (shared / "other.lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"), scratch_folder(shared, "other"):
        pass
    assert victim.read_bytes() == VICTIM
    assert names_in(victim.parent) == {"victim"}


@pytest.mark.usefixtures("db_catalog")
def test_the_audit_copy_is_not_written_through_a_link(home: Path, victim: Path):
    (home / "state").mkdir(parents=True)
    (home / "state" / "audit.jsonl").symlink_to(victim)
    with suppress(BackupError, OSError):
        audit.record("test", actor=ACTOR, detail="a detail")
    assert victim.read_bytes() == VICTIM
