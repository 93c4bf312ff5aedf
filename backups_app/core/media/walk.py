"""Everything in a folder, in the order of the archive, without ever following a link.

Each name is looked at and opened relative to the open folder that it is in, so nobody can lead
the walk out of it by swapping a folder for a link meanwhile. What is no file, folder or link is
left out, and said.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SQLITE_ERRORS, InputError, translated
from ..sqlite import SIDECAR_SUFFIXES, sidecar
from .tar import MAX_DEPTH, MAX_PATH_BYTES, Kind, shown

_MAX_NAMED = 10
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_KINDS: tuple[tuple[Callable[[int], bool], Kind], ...] = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "folder"),
    (stat.S_ISLNK, "link"),
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """One member of a folder."""

    path: str
    """In the archive, its label first."""
    name: str
    folder: int
    """Descriptor of the open folder that it is in."""
    kind: Kind
    status: os.stat_result


@dataclass
class Named:
    """A count, and the first few names of what was counted."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.names) < _MAX_NAMED:
            self.names.append(name)

    def said(self, what: str) -> str:
        """The count and the names in a sentence."""
        more = f", and {self.count - len(self.names):,} more" if self.count > len(self.names) else ""
        return f"{self.count:,} {what}: {', '.join(self.names)}{more}"


class Report:
    """What was not stored as it should be. Remarks do not spoil a backup, problems do."""

    def __init__(self) -> None:
        self._remarks: dict[str, Named] = {}
        self._problems: dict[str, Named] = {}

    def remark(self, what: str, path: str) -> None:
        """Note something that a reader should know."""
        self._remarks.setdefault(what, Named()).add(shown(path))

    def problem(self, what: str, path: str, *, why: str = "") -> None:
        """Note something that should be in the archive and is not."""
        self._problems.setdefault(what, Named()).add(f"{shown(path)} ({why})" if why else shown(path))

    @property
    def remarks(self) -> list[str]:
        """One line for each kind of remark."""
        return [found.said(what) for what, found in self._remarks.items()]

    @property
    def problems(self) -> list[str]:
        """One line for each kind of problem."""
        return [found.said(what) for what, found in self._problems.items()]


class Untouchable:
    """Databases that are in use: opening and closing such a file would drop this process's locks on it.

    They are known by inode, so that no other name of theirs is opened either, and a file that
    comes and goes beside one is known by its name.
    """

    def __init__(self, databases: list[Path]) -> None:
        self._inodes: set[tuple[int, int]] = set()
        self._paths: set[tuple[tuple[int, int], str]] = set()
        for path in databases:
            for each in (path, *(sidecar(path, suffix) for suffix in SIDECAR_SUFFIXES)):
                self._add(each)

    def _add(self, path: Path) -> None:
        try:
            folder = path.parent.stat()
            self._paths.add(((folder.st_dev, folder.st_ino), path.name))
            status = path.stat()
        except (OSError, ValueError):
            return
        self._inodes.add((status.st_dev, status.st_ino))

    def __contains__(self, found: Found) -> bool:
        if (found.status.st_dev, found.status.st_ino) in self._inodes:
            return True
        if not self._paths:
            return False
        folder = os.fstat(found.folder)
        return ((folder.st_dev, folder.st_ino), found.name) in self._paths


def open_root(path: Path) -> int:
    """Open a folder under care.

    Raises:
        InputError: it is a link or no folder. NotFoundError, BackupError: from the disk.
    """
    try:
        return os.open(path, _FOLDER_FLAGS)
    except NotADirectoryError as exc:
        raise InputError(f"{path} is a link or no folder.", "Give the real path of a folder.") from exc
    except (*SQLITE_ERRORS, OSError):
        with translated(f"opening the folder {path}"):
            raise


def walk(root: int, label: str, *, report: Report, check: Callable[[], object]) -> Iterator[Found]:
    """Everything below an open folder, each folder before what is in it, siblings by their bytes.

    ``check`` is called for each name, to stop. A :class:`Found` holds until the next one is asked for.
    """
    top = os.dup(root)
    stack: list[tuple[int, str, Iterator[str]]] = [(top, label, _names(top, label, report))]
    try:
        while stack:
            folder, path, names = stack[-1]
            name = next(names, None)
            if name is None:
                os.close(stack.pop()[0])
                continue
            check()
            found = _look(folder, path, name, report)
            if found is None:
                continue
            if found.kind != "folder":
                yield found
                continue
            below = _opened(found, report)
            if below is None:
                continue
            stack.append((below, found.path, _names(below, found.path, report)))
            yield found
    finally:
        for folder, _, _ in stack:
            os.close(folder)


def _names(folder: int, path: str, report: Report) -> Iterator[str]:
    try:
        return iter(sorted(os.listdir(folder), key=os.fsencode))
    except OSError as exc:
        report.problem("folders could not be read", path, why=exc.strerror or str(exc))
        return iter(())


def _look(folder: int, path: str, name: str, report: Report) -> Found | None:
    text = f"{path}/{os.fsencode(name).decode('utf-8', 'surrogateescape')}"
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        report.remark("files went away while they were read", text)
        return None
    except OSError as exc:
        report.problem("files could not be read", text, why=exc.strerror or str(exc))
        return None
    kind = next((kind for is_it, kind in _KINDS if is_it(status.st_mode)), None)
    if kind is None:
        report.remark("sockets, pipes or devices were left out", text)
        return None
    if text.count("/") >= MAX_DEPTH or len(os.fsencode(text)) > MAX_PATH_BYTES:
        report.problem("paths are too long or too deep", text[:80])
        return None
    return Found(path=text, name=name, folder=folder, kind=kind, status=status)


def _opened(found: Found, report: Report) -> int | None:
    try:
        return os.open(found.name, _FOLDER_FLAGS, dir_fd=found.folder)
    except FileNotFoundError:
        report.remark("files went away while they were read", found.path)
    except NotADirectoryError:
        report.remark("files were replaced while they were read", found.path)
    except OSError as exc:
        report.problem("folders could not be read", found.path, why=exc.strerror or str(exc))
    return None
