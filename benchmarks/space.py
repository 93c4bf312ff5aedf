"""Many hourly backups of one database that changes a little: what they take, beside restic, in one run.

Ours is the real service, with full archives and with deltas, on two equal databases; restic gets a
``sqlite3 .backup``. Each hour is the work of :mod:`.churn`. At the end the backups of ours are
restored and compared with what the database was, one of them by the stock tools' script of ``docs/space.md``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import sample
from .churn import work_an_hour

_ROOT = Path(__file__).resolve().parent.parent
_HEADER_BYTES = 100


@dataclass(kw_only=True)
class Contender:
    """What one of them came to."""

    name: str
    seconds: float = 0.0
    stored_bytes: int = 0
    restore_seconds: float = 0.0
    sizes: list[int] = field(default_factory=list)
    """Stored bytes after each backup."""


def main() -> None:
    """Read the arguments, measure, report."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="walsafe-space-", dir=arguments.work) as folder:
        work = Path(folder)
        os.environ["BACKUPS_HOME"] = str(work / "home")
        os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", database="catalog", verbosity=0)
        found = _Run(arguments, work).carry_out()
    _report(found, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.space", description=__doc__)
    parser.add_argument("--backups", type=int, default=349, help="how many, an hour apart (349: two weeks)")
    parser.add_argument("--megabytes", type=int, default=25, help="size of the database, in MiB (25)")
    parser.add_argument("--churn", type=float, default=0.5, help="percent of the rows touched each hour (0.5)")
    parser.add_argument("--chain", type=int, default=100, help="DELTA_CHAIN (100)")
    parser.add_argument(
        "--without-full", action="store_true", help="leave out the full archives, which take the most of the disk"
    )
    parser.add_argument(
        "--restore-every",
        type=int,
        default=1,
        metavar="N",
        help="restore and compare every N-th backup and the last (1: each)",
    )
    parser.add_argument("--work", type=Path, help="folder to work in (the system's)")
    return parser.parse_args()


class _Run:
    """One run: the databases, the contenders, and the hours."""

    def __init__(self, arguments: argparse.Namespace, work: Path) -> None:
        from django.conf import settings

        from backups_app.services.audit import Actor
        from backups_app.services.databases import add_database

        self.arguments, self.work = arguments, work
        self.actor = Actor.system()
        settings.BACKUPS = {**settings.BACKUPS, "ROOTS": [work]}
        self.lives = {"delta": work / "delta.db"}
        sample.build(self.lives["delta"], megabytes=arguments.megabytes)
        if not arguments.without_full:
            self.lives = {"full": work / "full.db", **self.lives}
            shutil.copyfile(self.lives["delta"], self.lives["full"])
        self.databases = {name: add_database(name, path, actor=self.actor) for name, path in self.lives.items()}
        for name, database in self.databases.items():
            database.delta_chain = arguments.chain if name == "delta" else 0
            database.save()
        self.contenders = {
            "full": Contender(name="ours, full archives"),
            "delta": Contender(name=f"ours, DELTA_CHAIN {arguments.chain}"),
            "restic": Contender(name="sqlite3 .backup + restic backup"),
        }
        self.contenders = {name: each for name, each in self.contenders.items() if name in (*self.lives, "restic")}
        self.truth: dict[str, list[tuple[str, str]]] = {name: [] for name in self.lives}
        """Backup and digest of what the database was."""
        self.restic = {**os.environ, "RESTIC_PASSWORD": "benchmark", "RESTIC_CACHE_DIR": str(work / "cache")}

    def carry_out(self) -> list[Contender]:
        """All hours, and then all restores."""
        self._restic("init")
        for hour in range(self.arguments.backups):
            if hour:
                for live in self.lives.values():
                    work_an_hour(live, hour=hour, share=self.arguments.churn / 100)
            digest = self._back_up_with_restic()
            for name in self.lives:
                self._back_up(name, digest)
            _show(f"{hour + 1} of {self.arguments.backups}")
        _show("\n")
        self._restore_all()
        return list(self.contenders.values())

    def _back_up(self, name: str, digest: str) -> None:
        from backups_app.models import Backup
        from backups_app.services.create import create_backup

        started = time.perf_counter()
        backup = create_backup(self.databases[name], actor=self.actor, trigger=Backup.Trigger.COMMAND)
        self.contenders[name].seconds += time.perf_counter() - started
        if backup.state != Backup.State.VERIFIED:
            raise SystemExit(f"A backup is not verified: {backup.reason}")
        self.truth[name].append((backup.pk, digest))
        self._note_size(name, self.work / "home" / "archives" / name)

    def _back_up_with_restic(self) -> str:
        copy = self.work / "restic.db"
        started = time.perf_counter()
        subprocess.run(["sqlite3", self.lives["delta"], f".backup {copy.name}"], check=True, cwd=self.work)
        self._restic("backup", str(copy))
        self.contenders["restic"].seconds += time.perf_counter() - started
        digest = _digest_of(copy)
        copy.unlink()
        self._note_size("restic", self.work / "repository")
        return digest

    def _restic(self, *arguments: str) -> None:
        command = ["restic", "-q", "-r", str(self.work / "repository"), *arguments]
        subprocess.run(command, env=self.restic, check=True)

    def _note_size(self, name: str, folder: Path) -> None:
        stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self.contenders[name].stored_bytes = stored
        self.contenders[name].sizes.append(stored)

    def _restore_all(self) -> None:
        from backups_app.models import Backup
        from backups_app.services.extract import extract_backup

        target = self.work / "restored.db"
        for name, backups in self.truth.items():
            restored = 0
            for number, (backup, digest) in enumerate(backups, start=1):
                if number % self.arguments.restore_every and number < len(backups):
                    continue
                started = time.perf_counter()
                extract_backup(Backup.objects.get(pk=backup), target, actor=self.actor)
                self.contenders[name].restore_seconds = time.perf_counter() - started
                _require_same(target, digest, f"backup {number} ({name})")
                restored += 1
                _show(f"restored {number} of {name}")
            _show("\n")
            print(f"Restored and compared: {restored} of {name}", file=sys.stderr)
        self._restore_with_stock_tools(target)
        started = time.perf_counter()
        self._restic("restore", "latest", "--target", str(self.work / "from-restic"))
        self.contenders["restic"].restore_seconds = time.perf_counter() - started

    def _restore_with_stock_tools(self, target: Path) -> None:
        from backups_app.models import Backup

        backup, digest = self.truth["delta"][-1]
        name = Backup.objects.get(pk=backup).archive_name
        script = re.findall(r"```sh\n(.*?)```", (_ROOT / "docs" / "space.md").read_text("utf-8"), re.DOTALL)[0]
        command = ["sh", "-c", script, "restore-chain.sh", name, str(target)]
        started = time.perf_counter()
        subprocess.run(command, check=True, cwd=self.work / "home" / "archives")
        print(f"The last one by stock tools: {time.perf_counter() - started:.1f} s", file=sys.stderr)
        _require_same(target, digest, "what the stock tools gave")


def _show(text: str) -> None:
    """How far it is, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text}", end="", file=sys.stderr, flush=True)


def _digest_of(path: Path) -> str:
    """SHA-256 of all but the header, which counts changes and says nothing of the content."""
    with open(path, "rb") as stream:
        stream.seek(_HEADER_BYTES)
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _require_same(path: Path, digest: str, what: str) -> None:
    found = _digest_of(path)
    path.unlink()
    if found != digest:
        raise SystemExit(f"{what} is not what the database was.")


def _report(found: list[Contender], arguments: argparse.Namespace) -> None:
    peer = found[-1]
    count = arguments.backups
    print(f"Made by `{shlex.join(['python', '-m', 'benchmarks.space', *sys.argv[1:]])}`")
    print(f"{count} hourly backups of {arguments.megabytes} MiB, {arguments.churn:g} % of the rows touched each hour;")
    step = arguments.restore_every
    print(f"{'every one' if step == 1 else f'one in {step} and the last'} of ours restored and compared.")
    print()
    print("| | stored | of restic's | all backups | of restic's | restore of the last |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for each in found:
        print(
            f"| {each.name} | {each.stored_bytes / 1e6:,.0f} MB | {each.stored_bytes / peer.stored_bytes:.2f} × "
            f"| {each.seconds:.0f} s | {each.seconds / peer.seconds:.2f} × | {each.restore_seconds:.1f} s |"
        )


if __name__ == "__main__":
    main()
