"""Disks that fail: a layer under the file and SQLite calls that lets the n-th of a kind go wrong.

:func:`failing` patches ``os``, ``open`` and ``sqlite3.connect`` for one block and one folder. Only
paths and descriptors below that folder count, so the interpreter's own files never fail. Django's
connections do not come from ``sqlite3.connect`` and are not touched; :meth:`Fault.of_catalogue`
fails their statements.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import sqlite3
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

ERRORS = {"no space": errno.ENOSPC, "i/o error": errno.EIO, "no links": errno.EPERM}
SQLITE_ERRORS = {"no space": sqlite3.SQLITE_FULL, "i/o error": sqlite3.SQLITE_IOERR}

EFFECTS: dict[str, tuple[str, ...]] = {
    "open": ("no space", "i/o error"),
    "write": ("no space", "i/o error", "short", "half"),
    "read": ("i/o error", "short"),
    "sync": ("i/o error", "no space"),
    "rename": ("i/o error", "no space", "no links"),
    "remove": ("i/o error",),
    "full disk": ("no space",),
    "sqlite": ("no space", "i/o error"),
    "catalogue": ("i/o error",),
}
"""What can go wrong in each kind of call. ``short`` takes or gives a part and tells so; ``half`` is a
write that takes a part, and whose continuation finds no space; a ``full disk`` stays full."""

HARMLESS = {"short", "no links"}
"""Effects that the system may have at any time and that correct code goes on from."""

_CREATING = os.O_CREAT | os.O_TRUNC


@dataclass
class Fault:
    """The ``at``-th call of a kind below ``root`` has an effect; ``at`` 0 only counts."""

    root: Path
    call: str
    effect: str
    at: int
    count: int = 0
    fired: str = ""
    """Where in our code it struck; empty when it did not."""
    _is_half_done: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def strikes(self, call: str, what: object) -> bool:
        """Count one call on a path or a descriptor; whether it is to fail."""
        if call != self.call or not self._is_ours(what):
            return False
        with self._lock:
            if self._is_half_done:
                return True
            self.count += 1
            is_it = 0 < self.at == self.count or (self.call == "full disk" and 0 < self.at < self.count)
            if is_it and not self.fired:
                frames = [each for each in traceback.extract_stack() if "backups_app" in each.filename]
                place = frames[-1] if frames else traceback.extract_stack()[-3]
                self.fired = f"{Path(place.filename).name}:{place.lineno} in {place.name}"
            return is_it

    def raise_os(self, call: str, what: object) -> None:
        """Fail as the system would, when it is this call's turn."""
        if self.strikes(call, what):
            raise OSError(ERRORS[self.effect], os.strerror(ERRORS[self.effect]))

    def raise_sqlite(self, what: object) -> None:
        """Fail as SQLite would."""
        if self.strikes("sqlite", what):
            error = sqlite3.OperationalError("an injected error")
            error.sqlite_errorcode = SQLITE_ERRORS[self.effect]
            raise error

    def of_catalogue(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        """A wrapper for ``connections["catalog"].execute_wrapper``."""
        if self.strikes("catalogue", self.root):
            from django.db import OperationalError

            raise OperationalError("disk I/O error (injected)")
        return execute(sql, params, many, context)

    def part_of(self, call: str, what: object, size: int) -> int:
        """How many of ``size`` bytes are written or read."""
        if size < 2 or not self.strikes(call, what):
            return size
        if self.effect not in ("short", "half") or self._is_half_done:
            raise OSError(ERRORS.get(self.effect, errno.ENOSPC), os.strerror(ERRORS.get(self.effect, errno.ENOSPC)))
        self._is_half_done = self.effect == "half"
        return size // 2

    def _is_ours(self, what: object) -> bool:
        if isinstance(what, int):
            try:
                what = Path(f"/proc/self/fd/{what}").readlink()
            except OSError:
                return False
        return isinstance(what, str | bytes | os.PathLike) and os.fsdecode(what).startswith(str(self.root))


def _at(path: Any, options: dict[str, Any]) -> Any:
    """The path of a call that names it relative to a descriptor, as ``shutil.rmtree`` does."""
    if options.get("dir_fd") is None or isinstance(path, int):
        return path
    return Path(f"/proc/self/fd/{options['dir_fd']}").readlink() / os.fsdecode(path)


@contextmanager
def failing(fault: Fault) -> Iterator[Fault]:
    """Let the calls of this process go through ``fault`` until the block ends."""
    with ExitStack() as stack:
        for name, replacement in _os_calls(fault).items():
            stack.enter_context(patch.object(os, name, replacement))
        opened = _open_call(fault)
        stack.enter_context(patch.object(builtins, "open", opened))
        stack.enter_context(patch.object(io, "open", opened))
        stack.enter_context(patch.object(sqlite3, "connect", _connect_call(fault)))
        yield fault


def _os_calls(fault: Fault) -> dict[str, Callable[..., Any]]:
    real = {name: getattr(os, name) for name in ("open", "write", "read")}

    def opened(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
        fault.raise_os("open", _at(path, options))
        if flags & _CREATING:
            fault.raise_os("full disk", _at(path, options))
        return int(real["open"](path, flags, mode, **options))

    def written(descriptor: int, content: bytes) -> int:
        fault.raise_os("full disk", descriptor)
        part = fault.part_of("write", descriptor, len(content))
        return int(real["write"](descriptor, content[:part]))

    def read(descriptor: int, size: int) -> bytes:
        return bytes(real["read"](descriptor, fault.part_of("read", descriptor, size)))

    def on_path(name: str, kind: str) -> Callable[..., Any]:
        function = getattr(os, name)

        def called(path: Any, *arguments: Any, **options: Any) -> Any:
            if fault.effect != "no links" or name == "link":
                fault.raise_os(kind, _at(path, options))
            if name in ("mkdir", "fsync", "fdatasync", "link"):
                fault.raise_os("full disk", _at(path, options))
            return function(path, *arguments, **options)

        return called

    kinds = {
        "mkdir": "open",
        "fsync": "sync",
        "fdatasync": "sync",
        "link": "rename",
        "rename": "rename",
        "replace": "rename",
        "unlink": "remove",
        "remove": "remove",
        "rmdir": "remove",
    }
    return {"open": opened, "write": written, "read": read, **{name: on_path(name, k) for name, k in kinds.items()}}


def _open_call(fault: Fault) -> Callable[..., Any]:
    raw_file, real = _file_type(fault), builtins.open

    def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        opener = options.pop("opener", None)
        is_text = "b" not in mode
        if not fault._is_ours(file) or (is_text and rest):
            return real(file, mode, buffering, *rest, opener=opener, **options)
        if not isinstance(file, int) and opener is None:  # else os.open was or will be asked
            fault.raise_os("open", file)
            if set(mode) & set("wxa"):
                fault.raise_os("full disk", file)
        raw = raw_file(file, mode.replace("b", "").replace("t", ""), options.pop("closefd", True), opener)
        if buffering == 0:
            return raw
        buffered = io.BufferedReader(raw) if mode.strip("bt") == "r" else io.BufferedWriter(raw)
        return io.TextIOWrapper(buffered, **options) if is_text else buffered

    return opened


def _file_type(fault: Fault) -> type[io.FileIO]:
    class File(io.FileIO):
        """A file whose reads and writes may fail; buffered files are built on top of it."""

        def write(self, content: Any) -> int:
            fault.raise_os("full disk", self.fileno())
            view = memoryview(content).cast("B")
            return super().write(view[: fault.part_of("write", self.fileno(), len(view))])

        def read(self, size: int | None = -1) -> bytes:
            if size is None or size < 0:
                return self.readall()
            return super().read(fault.part_of("read", self.fileno(), size))

        def readinto(self, buffer: Any) -> int:
            view = memoryview(buffer).cast("B")
            return super().readinto(view[: fault.part_of("read", self.fileno(), len(view))])

        def readall(self) -> bytes:
            fault.raise_os("read", self.fileno()) if fault.effect != "short" else None
            return super().readall()

    return File


def _connect_call(fault: Fault) -> Callable[..., sqlite3.Connection]:
    real = sqlite3.connect

    class Connection(sqlite3.Connection):
        """A connection whose statements and backup steps may fail. The last step of a backup has
        committed when it is told of, so that one does not."""

        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            fault.raise_sqlite(fault.root)
            return super().execute(*arguments)

        def backup(self, target: sqlite3.Connection, *, progress: Any = None, **options: Any) -> None:
            def stepped(status: int, remaining: int, total: int) -> None:
                if status == sqlite3.SQLITE_OK:
                    fault.raise_sqlite(fault.root)
                if progress is not None:
                    progress(status, remaining, total)

            super().backup(target, progress=stepped, **options)

    def connect(database: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
        if str(fault.root) in str(database):
            fault.raise_sqlite(fault.root)
            options.setdefault("factory", Connection)
        return real(database, *arguments, **options)

    return connect
