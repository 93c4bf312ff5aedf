"""Judge files and folders of others, one after the other, with progress over all of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ... import conf
from ...core.errors import translated
from ...core.files import create_private_folder, scratch_folder
from ...core.progress import ProgressCallback, Watch
from ...core.triage import Judged, TriageOptions, expanded, judge

PHASE = "judge"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be judged, as it was counted before."""

    paths: tuple[Path, ...]
    """What was named and is there."""
    missing: tuple[Path, ...]
    files: int
    size_bytes: int


def plan_of(paths: Sequence[Path]) -> Plan:
    """Look which paths exist, and how many files and bytes are below them. Nothing is opened."""
    there = tuple(path for path in paths if _exists(path))
    sizes = [_size(path) for path in _each_once(there)]
    return Plan(
        paths=there,
        missing=tuple(path for path in paths if path not in there),
        files=len(sizes),
        size_bytes=sum(sizes),
    )


def judge_files(
    plan: Plan, *, options: TriageOptions, watch: Watch, on_progress: ProgressCallback | None = None
) -> Iterator[Judged]:
    """Judge each file of ``plan`` once, in a stable order; a ZIP is followed by its members.

    Whatever is wrong with a file is its verdict. The scratch folder of the app is left out of a
    walk. ``on_progress`` hears of the bytes of all files together.

    Raises:
        CancelledError, DeadlineError: from ``watch``. BackupError: the scratch folder cannot be used.
    """
    done_bytes = 0
    with ExitStack() as stack:
        with translated("preparing the scratch folder"):
            folder = scratch_folder(conf.scratch_folder(), f"triage-{uuid.uuid4().hex}")
            scratch = stack.enter_context(folder)
        for path in _each_once(plan.paths):
            watch.check()
            size_bytes = _size(path)
            part = _Part(watch, on_progress, before=done_bytes, size_bytes=size_bytes, total=plan.size_bytes)
            yield from judge(path, scratch=scratch, watch=part, options=options).with_members()
            done_bytes += size_bytes
            part.tell(size_bytes)


def watch_of(is_cancelled: Callable[[], bool]) -> Watch:
    """The watch of a triage that no job does: it ends when it is cancelled, however long it takes."""
    return Watch(is_cancelled=is_cancelled)


class _Part(Watch):
    """The watch over all files, for one of them: its own progress is a part of theirs."""

    def __init__(
        self, parent: Watch, listener: ProgressCallback | None, *, before: int, size_bytes: int, total: int
    ) -> None:
        super().__init__()
        self._parent, self._listener = parent, listener
        self._before, self._size_bytes, self._total = before, size_bytes, total
        self._told = 0

    def check(self) -> None:
        self._parent.check()

    def report(self, phase: str, done_bytes: int, total_bytes: int) -> None:
        # A file is read, unpacked and hashed: half of it is told for each of the first two.
        if total_bytes:
            self.tell(min(self._size_bytes, self._size_bytes * done_bytes // (2 * total_bytes)))
        self.check()

    def tell(self, done_bytes: int) -> None:
        """Say how much of this file is done; it never goes back."""
        self._told = max(self._told, done_bytes)
        if self._listener is not None:
            self._listener(PHASE, min(self._total, self._before + self._told), self._total)


def _each_once(paths: Iterable[Path]) -> Iterator[Path]:
    with translated("preparing the scratch folder"):
        root = create_private_folder(conf.scratch_folder())
    seen: set[Path] = set()
    for path in expanded(paths, leave_out=root):
        if path not in seen:
            seen.add(path)
            yield path


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True  # it may be there: its verdict says why it could not be read
    return True


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except (OSError, ValueError):
        return 0
