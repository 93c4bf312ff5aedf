"""What backups are made of, done to a small home while its disk fails or its process is killed.

The table :data:`OPERATIONS` has one line per verb. Each knows how to get ready, how to run, and what
must hold however it ended; :class:`World` knows what must hold after all of them. A new verb is a
class with those three and a line in the table: ``test_faults.py`` and ``test_crash.py`` then try it.

Runs as ``python -m tests.operations faults|crash …`` in a process of its own, with a catalogue that
is a real file; prints one JSON document, or the traceback of what did not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Protocol

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.db import Error as DatabaseError  # noqa: E402
from django.db import connections  # noqa: E402
from django.utils import timezone  # noqa: E402

from backups_app import conf  # noqa: E402
from backups_app.core import restore as core_restore  # noqa: E402
from backups_app.core import snapshot as core_snapshot  # noqa: E402
from backups_app.core.errors import BackupError  # noqa: E402
from backups_app.destinations import LOCAL, get_destination  # noqa: E402
from backups_app.models import Backup, Copy, Database, Job, Restore, Verification  # noqa: E402
from backups_app.services.audit import Actor  # noqa: E402
from backups_app.services.create import create_backup  # noqa: E402
from backups_app.services.databases import add_database  # noqa: E402
from backups_app.services.extract import extract_backup  # noqa: E402
from backups_app.services.heal import heal_interrupted  # noqa: E402
from backups_app.services.jobs.reap import reap_jobs  # noqa: E402
from backups_app.services.links import object_name, object_names  # noqa: E402
from backups_app.services.names import manifest_name  # noqa: E402
from backups_app.services.prune import prune_database  # noqa: E402
from backups_app.services.rescan import rescan  # noqa: E402
from backups_app.services.restores import approve_restore, heal_restores, run_restore, undo_restore  # noqa: E402
from backups_app.services.restores.request import file_request  # noqa: E402
from backups_app.services.verify import verify_backup  # noqa: E402
from tests.faults import HARMLESS, Fault, failing  # noqa: E402
from tests.site import digest, quick_check  # noqa: E402
from tests.support import add_filler, build_shop, connected, names_in  # noqa: E402

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ANNA, BEN = Actor(id="1", name="anna"), Actor(id="2", name="ben")


class World:
    """A home with one database that swings between two contents, each of them backed up."""

    def __init__(self, folder: Path, *, size_bytes: int) -> None:
        self.root = folder
        self.live = folder / "live" / "shop.sqlite3"
        self.live.parent.mkdir()
        build_shop(self.live)
        with connected(self.live) as connection:
            connection.execute("CREATE TABLE filler (id INTEGER PRIMARY KEY, payload BLOB)")
        self.database: Database = add_database("shop", self.live, actor=ANNA)
        self.backups: dict[str, Backup] = {}
        self._proven: dict[str, tuple[object, ...]] = {}
        for _ in range(2):
            with connected(self.live) as connection:
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute("DELETE FROM filler")
                add_filler(connection, size_bytes)
            self.backups[digest(self.live)] = self.create()
        self.before = digest(self.live)

    def create(self) -> Backup:
        """A backup that must succeed."""
        backup = create_backup(self.database, actor=ANNA, trigger=Backup.Trigger.COMMAND)
        assert backup.state == Backup.State.VERIFIED, backup.reason
        return backup

    def other(self) -> tuple[str, Backup]:
        """The content that the database does not hold now."""
        (found,) = [each for each in self.backups.items() if each[0] != self.before]
        return found

    def settle(self) -> None:
        """What the next verb does first."""
        heal_interrupted()
        reap_jobs()
        heal_restores()

    def judge(self, *, beside: set[str] | None = None) -> None:
        """What must hold after whatever ended however, once :meth:`settle` has run."""
        ended = ((Backup, "running"), (Backup, "pruning"), (Restore, "running"), (Job, "running"), (Job, "queued"))
        for model, state in ended:
            assert not model.objects.filter(state=state).exists(), f"a {model.__name__} row says {state}"
        # A rescan that ended early says so of what it had found.
        pending = Copy.objects.filter(state=Copy.State.PENDING).exclude(backup__failure_code="unverified")
        assert not pending.exists(), "a copy is left pending"
        scratch = conf.scratch_folder()
        assert names_in(scratch) == set(), f"left in scratch: {names_in(scratch)}"
        archives = conf.archives_folder()
        stored = {str(each.relative_to(archives)) for each in archives.rglob("*") if each.is_file()}
        copies = Copy.objects.exclude(state=Copy.State.PRUNED).select_related("backup")
        listed = {name for copy in copies for name in object_names(copy.backup, copy)}
        assert stored == listed, f"stored and not listed: {stored - listed}; listed, not stored: {listed - stored}"
        for backup in Backup.objects.filter(state=Backup.State.VERIFIED).prefetch_related("copies"):
            self._prove(backup)
        extra = (
            names_in(self.live.parent) - {self.live.name + each for each in ("", "-wal", "-shm")} - (beside or set())
        )
        assert not extra, f"left beside the database: {extra}"
        for line in (conf.state_folder() / "audit.jsonl").read_text().splitlines():
            assert isinstance(json.loads(line), dict)

    def _prove(self, backup: Backup) -> None:
        """A verified backup has an archive that gives the content; read without the engine, once per file."""
        (copy,) = backup.copies.all()
        archive = conf.archives_folder() / object_name(backup, copy)
        facts = archive.stat()
        seen = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if self._proven.get(backup.pk) == seen:
            return
        content = zstd.decompress(archive.read_bytes())
        assert hashlib.sha256(content).hexdigest() == backup.sha256
        manifest = (conf.archives_folder() / manifest_name(copy.name)).read_bytes()
        assert hashlib.sha256(manifest).hexdigest() == backup.manifest_sha256
        assert Verification.objects.filter(backup=backup, verdict="passed").exists()
        self._proven[backup.pk] = seen


class Operation(Protocol):
    """One verb. ``is_over`` after :meth:`run` means that nothing disturbed it."""

    def __init__(self, world: World) -> None: ...

    def run(self) -> None:
        """The verb; what it needs was made ready in ``__init__``."""

    def judge(self) -> None:
        """What must hold however it ended, besides :meth:`World.judge`."""

    def has_succeeded(self) -> bool:
        """Whether it did what it was asked for."""


class Create:
    """A backup. The live database stays as it is."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._before = self._verified()

    def run(self) -> None:
        create_backup(self.world.database, actor=ANNA, trigger=Backup.Trigger.COMMAND)

    def judge(self) -> None:
        assert digest(self.world.live) == self.world.before
        assert self._verified() - self._before in (0, 1)

    def has_succeeded(self) -> bool:
        return self._verified() == self._before + 1

    def _verified(self) -> int:
        return Backup.objects.filter(state=Backup.State.VERIFIED).count()


class Share(Create):
    """A backup of a database that did not change. The archive that it shares stays as it is.

    One that cannot be read at that moment is not shared: the backup has an archive of its own then.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        settings.BACKUPS = {**settings.BACKUPS, "REUSE_UNCHANGED": True}
        self._archives = self._digests()

    def judge(self) -> None:
        super().judge()
        found = self._digests()
        assert self._archives.items() <= found.items(), "what was there is changed or gone"
        newest = Backup.objects.filter(state=Backup.State.VERIFIED).latest("created_at")
        if self.has_succeeded():
            assert bool(newest.shares_with) == (found == self._archives)
        else:
            assert found == self._archives

    def _digests(self) -> dict[str, str]:
        found = conf.archives_folder().rglob("*.sqlite3.zst")
        return {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in found}


class Verify:
    """A full verification. The copy is good, so no fault may have it called bad."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.backup = Backup.objects.get(pk=world.backups[world.before].pk)
        self._before = self._passed()

    def run(self) -> None:
        verify_backup(self.backup, level=Verification.Level.FULL, actor=ANNA)

    def judge(self) -> None:
        assert digest(self.world.live) == self.world.before
        backup = Backup.objects.get(pk=self.backup.pk)
        states = set(backup.copies.values_list("state", flat=True))
        assert backup.state == Backup.State.VERIFIED, f"{backup.state}: {backup.reason}"
        assert states <= {Copy.State.VERIFIED, Copy.State.UNREACHABLE}, f"{states}: {backup.verdict}"

    def has_succeeded(self) -> bool:
        return self._passed() == self._before + 1

    def _passed(self) -> int:
        return Verification.objects.filter(backup=self.backup, level="full", verdict="passed").count()


class Extract:
    """An extraction: the new file is whole, or not there."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.wanted, self.backup = next(iter(world.backups.items()))
        self.target = world.root / "extracted" / "shop.sqlite3"
        self.target.parent.mkdir(exist_ok=True)
        self.target.unlink(missing_ok=True)
        self.has_returned = False

    def run(self) -> None:
        extract_backup(self.backup, self.target, actor=ANNA)
        self.has_returned = True

    def judge(self) -> None:
        assert digest(self.world.live) == self.world.before
        found = names_in(self.target.parent)
        if self.has_returned:
            assert found == {self.target.name}
            assert digest(self.target) == self.wanted
        else:
            assert found == set(), f"a failed extraction left {found}"

    def has_succeeded(self) -> bool:
        return self.has_returned


class RestoreInPlace:
    """An approved restore: the old or the new content, and the row says which."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.wanted, backup = world.other()
        restore = file_request(
            backup, world.database, reason="a test", actor=ANNA, overrides={}, is_migrating=False, preview=None
        )
        self.restore = approve_restore(restore, actor=BEN)

    def run(self) -> None:
        run_restore(self.restore, actor=BEN)

    def row(self) -> Restore | None:
        """The row that tells how it ended."""
        return Restore.objects.get(pk=self.restore.pk)

    def judge(self) -> None:
        row, world = self.row(), self.world
        found = digest(world.live)
        assert found in (world.before, self.wanted), "the content is neither the old nor the new one"
        assert quick_check(world.live) == "ok"
        said = row.state if row is not None else "nothing"
        assert (said == Restore.State.SUCCEEDED) == (found == self.wanted), (said, row and row.outcome)
        world.before = found

    def has_succeeded(self) -> bool:
        row = self.row()
        return row is not None and row.state == Restore.State.SUCCEEDED


class Undo(RestoreInPlace):
    """The undo of the last restore, which may be an undo itself."""

    def __init__(self, world: World) -> None:
        self.world = world
        done = Restore.objects.filter(state=Restore.State.SUCCEEDED).order_by("-finished_at").first()
        if done is None:
            first = RestoreInPlace(world)
            first.run()
            first.judge()
            assert first.has_succeeded()
            done = Restore.objects.get(pk=first.restore.pk)
        self.restore = done
        self.wanted, _ = world.other()
        self._earlier = set(done.undos.values_list("pk", flat=True))

    def run(self) -> None:
        undo_restore(self.restore, actor=ANNA)

    def row(self) -> Restore | None:
        undos = Restore.objects.filter(undo_of=self.restore).exclude(pk__in=self._earlier)
        for undo in undos:  # filed and not begun: as an operator would, so that the next one is not refused
            if undo.state in (Restore.State.REQUESTED, Restore.State.APPROVED):
                Restore.objects.filter(pk=undo.pk).update(state=Restore.State.CANCELLED, finished_at=timezone.now())
        return undos.order_by("-requested_at").first()


class Recreate(RestoreInPlace):
    """A restore where no database can be read: it stays as it is, or is there anew, the old one moved aside."""

    GARBAGE: ClassVar[bytes] = b"this was a database once" * 100

    def __init__(self, world: World) -> None:
        super().__init__(world)
        for name in names_in(world.live.parent):
            (world.live.parent / name).unlink()
        world.live.write_bytes(self.GARBAGE)
        (world.live.parent / "shop.sqlite3-wal").write_bytes(b"left over")

    def judge(self) -> None:
        row, live = self.row(), self.world.live
        assert row is not None
        names = names_in(live.parent)
        if row.state == Restore.State.SUCCEEDED or "made anew" in row.outcome:  # there, and perhaps not checked
            assert digest(live) == self.wanted
            aside = [name for name in names if ".damaged-" in name and not name.endswith(("-wal", "-shm"))]
            assert len(aside) == 1
            assert (live.parent / aside[0]).read_bytes() == self.GARBAGE
        else:
            # SQLite removes a -wal that it cannot use.
            assert names <= {"shop.sqlite3", "shop.sqlite3-wal"}, f"{row.state} ({row.outcome}): {names}"
            assert live.read_bytes() == self.GARBAGE
        for name in names:
            (live.parent / name).unlink()
        with connected(live) as connection, connected(self.world.root / "kept.sqlite3") as kept:
            kept.backup(connection)  # the old content again, for the next one
        assert digest(live) == self.world.before


class Prune:
    """Retention gives the oldest backup up. It is there with all its files, or gone with all of them."""

    KEPT: ClassVar[int] = 2

    def __init__(self, world: World) -> None:
        self.world = world
        Database.objects.filter(pk=world.database.pk).update(keep_last=self.KEPT)
        world.database.refresh_from_db()
        with connected(world.live) as connection:
            connection.execute("UPDATE filler SET payload = randomblob(100) WHERE id = (SELECT min(id) FROM filler)")
        world.before = digest(world.live)
        world.create()
        verified = Backup.objects.filter(state=Backup.State.VERIFIED).order_by("-taken_at")
        self.kept = {each.pk for each in verified[: self.KEPT]}
        self.doomed = {each.pk for each in verified[self.KEPT :]}
        assert self.doomed

    def run(self) -> None:
        prune_database(self.world.database, actor=ANNA)

    def judge(self) -> None:
        assert digest(self.world.live) == self.world.before
        kept = Backup.objects.filter(pk__in=self.kept, copies__state=Copy.State.VERIFIED)
        assert set(kept.values_list("state", flat=True)) == {Backup.State.VERIFIED}
        assert kept.count() == self.KEPT
        for backup in Backup.objects.filter(pk__in=self.doomed):
            assert (backup.state == Backup.State.PRUNED) == (backup.copies.get().state == Copy.State.PRUNED)

    def has_succeeded(self) -> bool:
        return not Backup.objects.filter(pk__in=self.doomed).exclude(state=Backup.State.PRUNED).exists()


class Rescan:
    """The catalogue has lost a backup. Its archive stays as it is, and its row comes back with the truth."""

    def __init__(self, world: World) -> None:
        self.world = world
        lost = world.backups[world.before]
        Backup.objects.filter(pk=lost.pk).delete()
        self.lost = lost.pk
        self._stored = self._digests()

    def run(self) -> None:
        rescan(actor=ANNA)

    def judge(self) -> None:
        assert digest(self.world.live) == self.world.before
        assert self._digests() == self._stored, "a rescan changed the archives"
        for backup in Backup.objects.all():
            states = set(backup.copies.values_list("state", flat=True))
            assert states <= {Copy.State.VERIFIED, Copy.State.UNREACHABLE, Copy.State.PENDING}, f"{states}"
        if not self.has_succeeded():  # what the next one needs: the rest is found by it
            rescan(actor=ANNA)
            assert Backup.objects.get(pk=self.lost).state == Backup.State.VERIFIED

    def has_succeeded(self) -> bool:
        return Backup.objects.filter(pk=self.lost, state=Backup.State.VERIFIED).exists()

    def _digests(self) -> dict[str, str]:
        archives = conf.archives_folder()
        found = (each for each in archives.rglob("*") if each.is_file())
        return {str(each.relative_to(archives)): hashlib.sha256(each.read_bytes()).hexdigest() for each in found}


OPERATIONS: dict[str, type[Operation]] = {
    "create": Create,
    "share": Share,
    "verify": Verify,
    "extract": Extract,
    "restore": RestoreInPlace,
    "undo": Undo,
    "recreate": Recreate,
    "prune": Prune,
    "rescan": Rescan,
}


# Faults


def sampled(total: int, most: int) -> list[int]:
    """At most ``most`` of 1…total, the first and the last among them."""
    if total <= most or os.environ.get("WALSAFE_SOAK"):
        return list(range(1, total + 1))
    return sorted({1 + round(each * (total - 1) / (most - 1)) for each in range(most)})


def _attempt(operation: Operation, fault: Fault) -> BaseException | None:
    """Run under a fault; what was raised, if it is something that callers are told of."""
    wrapper = connections[conf.CATALOG_ALIAS].execute_wrapper(fault.of_catalogue)
    try:
        with failing(fault), wrapper if fault.call == "catalogue" else nullcontext():
            operation.run()
    except BackupError as exc:
        return exc
    except DatabaseError as exc:
        if fault.call != "catalogue":
            raise
        return exc
    return None


def _once(world: World, name: str, fault: Fault) -> None:
    """One run under a fault, its judgement, and the next run, which must work."""
    operation = OPERATIONS[name](world)
    error = _attempt(operation, fault)
    world.settle()
    operation.judge()
    world.judge()
    if fault.effect in HARMLESS or not fault.fired:
        assert error is None, f"{error} (at {fault.fired})"
        assert operation.has_succeeded(), "nothing was wrong, and it failed"
    if fault.fired:
        again = OPERATIONS[name](world)
        again.run()
        again.judge()
        world.judge()
        assert again.has_succeeded(), "the next run failed"


def run_faults(world: World, name: str, call: str, effects: list[str], *, most: int) -> dict[str, int]:
    """Every n (or a sample of them) for each effect; raises AssertionError, with the place, for what does not hold."""
    with connected(world.live) as live, connected(world.root / "kept.sqlite3") as kept:
        live.backup(kept)
    runs = struck = 0
    problems: list[str] = []
    counting = Fault(world.root, call, effects[0], at=0)
    _once(world, name, counting)
    for effect in effects:
        for at in [*sampled(counting.count, most), counting.count + 1000]:  # the last one passes clean
            fault = Fault(world.root, call, effect, at=at)
            try:
                _once(world, name, fault)
            except Exception as exc:
                world.before = digest(world.live)
                problems.append(f"{name}, {effect} at {call} {at} ({fault.fired or 'did not strike'}): {exc!r}")
                traceback.print_exception(exc, limit=-3, file=sys.stderr)
                if len(problems) > 20:
                    print("\n".join(problems), file=sys.stderr)
                    raise
            runs, struck = runs + 1, struck + bool(fault.fired)
    assert not problems, "\n".join(problems)
    return {"calls": counting.count, "runs": runs, "struck": struck}


# Kills


def run_crashes(world: World, name: str, *, kills: int, seed: int) -> dict[str, int]:
    """SIGKILL at ``kills`` moments spread over the time that the operation takes, each in a process of its own."""
    chance = random.Random(seed)
    with connected(world.live) as live, connected(world.root / "kept.sqlite3") as kept:
        live.backup(kept)
    seconds = max(_timed(world, name) for _ in range(3))
    hit = 0
    for number in range(kills):
        operation = OPERATIONS[name](world)
        after = seconds * (number + chance.random()) / kills
        hit += _killed(operation, after)
        world.settle()
        operation.judge()
        world.judge()
    _timed(world, name)
    return {"kills": kills, "hit": hit}


def _timed(world: World, name: str) -> float:
    operation = OPERATIONS[name](world)
    started = time.monotonic()
    assert not _killed(operation, 60)
    seconds = time.monotonic() - started
    world.settle()
    assert operation.has_succeeded()
    operation.judge()
    world.judge()
    return seconds


def _killed(operation: Operation, after_seconds: float) -> bool:
    """Run in a forked process and kill it after a while; False when it had ended before."""
    connections.close_all()  # SQLite's connections must not be carried over a fork
    child = os.fork()
    if child == 0:
        try:
            operation.run()
        finally:
            os._exit(0)
    give_up_at = time.monotonic() + after_seconds
    while time.monotonic() < give_up_at:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main(arguments: list[str] | None = None) -> None:
    """Try one operation."""
    parser = argparse.ArgumentParser(prog="python -m tests.operations")
    parser.add_argument("how", choices=["faults", "crash"])
    parser.add_argument("operation", choices=sorted(OPERATIONS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--call", default="write")
    parser.add_argument("--effect", action="append", default=[])
    parser.add_argument("--most", type=int, default=8)
    parser.add_argument("--kills", type=int, default=15)
    given = parser.parse_args(arguments)
    get_destination(LOCAL).sweep()
    if given.how == "faults":
        core_snapshot._PAGES_PER_STEP = core_restore._PAGES_PER_STEP = 4  # several steps of a small database
        world = World(given.folder, size_bytes=40_000)
        found: Any = run_faults(world, given.operation, given.call, given.effect, most=given.most)
    else:
        world = World(given.folder, size_bytes=8 << 20)
        found = run_crashes(world, given.operation, kills=given.kills, seed=5)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
