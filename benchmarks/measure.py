"""One measurement: one contender, one time, in a process of its own, with a limit to its time.

A fresh process makes the peak of resident memory real: it is that of this one piece of work.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .contender import ASIDE, ROOT, BesideWriter, Contender, ContenderError
from .contenders import named

_STATUS = Path("/proc/self/status")
_STAT = Path("/proc/stat")
_PROCESSES = Path("/proc")
_CHUNK_BYTES = 1 << 20
_LOOK_SECONDS = 0.04
_DYING_SECONDS = 5


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one run of one contender took."""

    seconds: float
    """From the call to the return, everything durable; starting the interpreter is not in it. Or
    what the contender itself says is to be counted."""
    cpu_seconds: float
    """Of the process and all programs it started and waited for, user and system: hardly moved by other work."""
    output_bytes: int
    memory_bytes: int
    """Peak resident memory of the Python process above what it had, idle, just before; or that of
    it and all programs it started together, where that is more."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of each commit of a writer beside it."""


def measure(contender: Contender, source: Path, *, work: Path, limit_seconds: float) -> Measurement:
    """Run ``contender`` on ``source`` in a fresh process; its output is removed.

    Raises:
        ContenderError: it failed, or was stopped at the limit.
    """
    with tempfile.TemporaryDirectory(dir=work, prefix="run-") as name:
        folder, report = Path(name) / "result", Path(name) / "report.json"
        folder.mkdir()
        command = [sys.executable, "-m", "benchmarks.measure", contender.name, str(source), str(folder), str(report)]
        # A session of its own, so that at the limit, or at a Ctrl-C, all its programs end with it.
        with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
            try:
                tree_bytes = _watch(process, started=_started_file(report), limit_seconds=limit_seconds)
            finally:
                _end_session(process)
        if process.returncode or not report.exists():
            raise ContenderError(f"its process ended with {process.returncode}")
        found = json.loads(report.read_text())
        if "failure" in found:
            raise ContenderError(found["failure"])
        measurement = Measurement(**found)
        idle_bytes = int(_started_file(report).read_text())
        return replace(measurement, memory_bytes=max(measurement.memory_bytes, tree_bytes - idle_bytes))


def _started_file(report: Path) -> Path:
    """Where the process says that the measured part begins, and what memory it had by then."""
    return report.with_suffix(".started")


def _watch(process: subprocess.Popen[bytes], *, started: Path, limit_seconds: float) -> int:
    """Wait for the process; the highest sum of resident memory of it and all below it that was seen."""
    peak_bytes, deadline = 0, time.monotonic() + limit_seconds
    while True:
        try:
            process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise ContenderError(f"did not end within {limit_seconds:g} s") from None
            if started.exists():
                peak_bytes = max(peak_bytes, _tree_bytes(process.pid))
        else:
            return peak_bytes


def _end_session(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
    process.wait()
    # Those below it die a moment later, and until then may still write into the folder that is
    # removed next. They are not our children: nobody but the system can say when they are gone.
    deadline = time.monotonic() + _DYING_SECONDS
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(_LOOK_SECONDS)


def _tree_bytes(pid: int) -> int:
    """Resident memory of a process and all below it; pages that two of them share count twice."""
    total_bytes = 0
    try:
        pages = int((_PROCESSES / str(pid) / "statm").read_text().split()[1])
        total_bytes = pages * os.sysconf("SC_PAGE_SIZE")
        for task in (_PROCESSES / str(pid) / "task").iterdir():
            total_bytes += sum(_tree_bytes(int(child)) for child in (task / "children").read_text().split())
    except (OSError, ValueError, IndexError):
        pass  # it ended meanwhile, or this system has no /proc
    return total_bytes


def run_here(contender: Contender, source: Path, folder: Path, *, report: Path) -> Measurement:
    """Measure in this process: source in the page cache, and no earlier writes still pending."""
    if contender.prepare is not None:
        contender.prepare(source, folder)
    _warm(source)
    os.sync()
    idle_bytes = _resident_bytes("VmRSS")
    _started_file(report).write_text(str(idle_bytes))
    cpu_seconds = _our_seconds()
    started = time.perf_counter()
    counted = contender.run(source, folder)
    seconds = time.perf_counter() - started
    cpu_seconds = _our_seconds() - cpu_seconds
    peak_bytes = _resident_bytes("VmHWM")
    latencies: list[float] = []
    if isinstance(counted, BesideWriter):
        seconds, latencies = counted.seconds, counted.latencies
    elif counted is not None:
        seconds = counted
    return Measurement(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        output_bytes=_output_bytes(folder),
        memory_bytes=peak_bytes - idle_bytes,
        latencies=latencies,
    )


def _output_bytes(folder: Path) -> int:
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != ASIDE
    )


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


def _warm(source: Path) -> None:
    buffer = bytearray(_CHUNK_BYTES)
    for path in [source] if source.is_file() else source.rglob("*"):
        if path.is_file():
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
    name, source, folder, report = sys.argv[1], *map(Path, sys.argv[2:])
    try:
        found: dict[str, object] = asdict(run_here(named(name), source, folder, report=report))
    except ContenderError as exc:
        found = {"failure": str(exc)}
    except Exception as exc:  # noqa: BLE001 - one contender's failure must not end the others
        found = {"failure": f"{type(exc).__name__}: {exc}"}
    report.write_text(json.dumps(found))


if __name__ == "__main__":
    _main()
