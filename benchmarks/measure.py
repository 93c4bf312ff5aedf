"""One measurement: one contender, one time, in a process of its own.

A fresh process makes the peak of resident memory real: it is that of this one piece of work.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from .contenders import CONTENDERS, Contender

_ROOT = Path(__file__).resolve().parent.parent
_STATUS = Path("/proc/self/status")
_STAT = Path("/proc/stat")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one run of one contender took."""

    seconds: float
    """From the call to the return, everything durable; starting the interpreter is not in it. Or
    what the contender itself says is to be counted."""
    output_bytes: int
    memory_bytes: int
    """Peak resident memory of the Python process above what it had, idle, just before."""


def measure(contender: Contender, source: Path, *, work: Path) -> Measurement:
    """Run ``contender`` on ``source`` in a fresh process; its output is removed.

    Raises:
        subprocess.CalledProcessError: it failed; its own words are on stderr.
    """
    with tempfile.TemporaryDirectory(dir=work, prefix="run-") as folder:
        command = [sys.executable, "-m", "benchmarks.measure", contender.name, str(source), folder]
        done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, check=True)
    return Measurement(**json.loads(done.stdout))


def run_here(contender: Contender, source: Path, folder: Path) -> Measurement:
    """Measure in this process: source in the page cache, and no earlier writes still pending."""
    _warm(source)
    os.sync()
    idle_bytes = _resident_bytes("VmRSS")
    started = time.perf_counter()
    counted = contender.run(source, folder)
    seconds = time.perf_counter() - started if counted is None else counted
    peak_bytes = _resident_bytes("VmHWM")
    output_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Measurement(seconds=seconds, output_bytes=output_bytes, memory_bytes=peak_bytes - idle_bytes)


class OtherWork:
    """How busy others kept the CPUs since this was made: on a shared machine, figures need it."""

    def __init__(self) -> None:
        self._started, self._total, self._ours = time.monotonic(), _busy_seconds(), _our_seconds()

    def share(self) -> float | None:
        """Their share of all CPU time, 0 to 1, the kernel's own disk writing included."""
        total = _busy_seconds()
        if self._total is None or total is None:
            return None
        available = (time.monotonic() - self._started) * (os.cpu_count() or 1)
        return max(0.0, total - self._total - (_our_seconds() - self._ours)) / available


def _busy_seconds() -> float | None:
    """CPU seconds that this machine has worked: proc(5), ``/proc/stat``; ``None`` where there is none."""
    if not _STAT.exists():
        return None
    user, nice, system, _idle, _waiting, irq, softirq = _STAT.read_text().split("\n", 1)[0].split()[1:8]
    return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")


def _our_seconds() -> float:
    # Tools that a contender starts are counted as soon as it has waited for them.
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def _warm(path: Path) -> None:
    buffer = bytearray(_CHUNK_BYTES)
    with open(path, "rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass


def _resident_bytes(name: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process; elsewhere than Linux always the peak."""
    if not _STATUS.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    # Not ru_maxrss here: it survives exec, so it may be the peak of the process that started us.
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def _main() -> None:
    name, source, folder = sys.argv[1:]
    contender = next(each for each in CONTENDERS if each.name == name)
    print(json.dumps(asdict(run_here(contender, Path(source), Path(folder)))))


if __name__ == "__main__":
    _main()
