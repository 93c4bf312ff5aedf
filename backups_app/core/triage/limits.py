"""How much one foreign file may cost: time, unpacked bytes, layers, members, schema."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import BackupError, DeadlineError
from ..progress import Watch


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What judging one file may cost at most. Files beyond a limit are not judged, and say so."""

    seconds: float = 120.0
    unpacked_bytes: int = 64 << 30
    """Bytes that may be unpacked from one file, over all its layers and members together."""
    ratio: int = 1000
    """Unpacked bytes per stored byte, looked at only above ``unchecked_bytes``."""
    unchecked_bytes: int = 256 << 20
    scratch_share: float = 0.9
    """Part of the free space of the scratch folder that one file may take."""
    layers: int = 6
    """Compressions, encryptions and ZIPs inside of each other."""
    members: int = 10_000
    zip_directory_bytes: int = 16 << 20
    schema_bytes: int = 64 << 20
    schema_objects: int = 500_000
    sidecar_bytes: int = 16 << 30
    time_columns: int = 100
    """Columns that are asked for the newest row."""
    extra_seconds: float = 10.0
    """How long may be looked for what only adds to a verdict: the newest row, what is left of a damaged file."""


class OverLimitError(BackupError):
    """The file costs more than it may. This says nothing about its content."""

    code = "over_limit"


class TookTooLongError(DeadlineError):
    """This one file took longer than its own limit."""


class FileWatch(Watch):
    """The caller's watch with a time limit for one file, or for one part of the work on it."""

    def __init__(self, parent: Watch, *, seconds: float) -> None:
        super().__init__()
        self._parent = parent
        self._seconds = seconds
        self._give_up_at = time.monotonic() + seconds

    def check(self) -> None:
        """As :meth:`Watch.check`.

        Raises:
            TookTooLongError: its own limit is over. CancelledError, DeadlineError: the caller's watch.
        """
        self._parent.check()
        if time.monotonic() > self._give_up_at:
            raise TookTooLongError(f"It took longer than {self._seconds:g} s.", "Judge it alone with a higher limit.")

    def report(self, phase: str, done_bytes: int, total_bytes: int) -> None:
        """Tell the caller's listener, then :meth:`check`."""
        self._parent.report(phase, done_bytes, total_bytes)
        self.check()


class Budget:
    """The bytes that one file may still unfold to."""

    def __init__(self, limits: Limits, *, stored_bytes: int, scratch: Path) -> None:
        room = int(shutil.disk_usage(scratch).free * limits.scratch_share)
        fair = max(limits.unchecked_bytes, limits.ratio * stored_bytes)
        self._most, self._name = min(
            (limits.unpacked_bytes, "the limit for one file"),
            (room, "the free scratch space"),
            (fair, f"{limits.ratio:,} times its size"),
        )
        self._left = self._most

    def spend(self, count: int) -> None:
        """Take ``count`` bytes from what is left.

        Raises:
            OverLimitError: there is not so much left.
        """
        self._left -= count
        if self._left < 0:
            raise OverLimitError(
                f"It unpacks to more than {self._most:,} bytes ({self._name}).",
                "Unpack it by hand on a disk with enough room, if you trust it.",
            )

    def metered(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """``pieces``, each paid for."""
        for piece in pieces:
            self.spend(len(piece))
            yield piece
