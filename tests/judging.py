"""Judging in tests: every judgement also proves that it left no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backups_app.core.progress import Watch
from backups_app.core.triage import Judged, TriageOptions, judge
from tests.support import NOW, names_in


def facts_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """What ``lstat`` says of everything in a folder; reading changes none of it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def open_files() -> int:
    """How many descriptors this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))


def judged(path: Path, scratch: Path, *, watch: Watch | None = None, **options: Any) -> Judged:
    """Judge one file; nothing may be left in scratch or changed where the file lies."""
    before, files = facts_of(path.parent), open_files()
    found = judge(path, scratch=scratch, watch=watch or Watch(), options=TriageOptions(now=lambda: NOW, **options))
    assert names_in(scratch) == set()
    assert facts_of(path.parent) == before
    assert open_files() <= files
    return found
