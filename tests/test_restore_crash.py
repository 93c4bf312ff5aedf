"""A restore that is killed: the live database is the old or the new one, and the request says which.

Each half of the kills below is a test of its own: 10 of them, 20 together. ``WALSAFE_SOAK=1`` in the
environment makes them 150 each, 300 together.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from backups_app.core.files import file_lock
from tests.site import Site, digest, fill, quick_check, run_django
from tests.support import names_in

KILLS = 150 if os.environ.get("WALSAFE_SOAK") else 10
SIZE_BYTES = 30 << 20

# A request costs a preview; the runs are what is tested, so the requests are filed in one go.
_FILE = """
from backups_app.models import Backup, Restore
from backups_app.services.audit import Actor
from backups_app.services.restores.request import file_request
from django.contrib.auth.models import User
anna = Actor.of(User.objects.get(username="anna"))
made = {}
for backup in Backup.objects.select_related("database"):
    made[backup.pk] = [
        file_request(
            backup, backup.database, reason="crash", actor=anna, overrides={}, is_migrating=False, preview=None
        ).pk
        for _ in range(COUNT)
    ]
print(json.dumps(made))
"""


class Crashes:
    """A site that swings between two contents, and requests enough for either."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.contents: dict[str, str] = {}
        for _ in range(2):
            fill(site.console, SIZE_BYTES)
            self.contents[site.backup()] = digest(site.path)
        self._requests = json.loads(run_django(site.console, _FILE.replace("COUNT", str(KILLS + 3))))

    def next(self) -> tuple[str, str, str]:
        """An unused request for what the site does not hold now: its id, the digest now, the digest it would give."""
        now = digest(self.site.path)
        (other,) = [backup for backup, content in self.contents.items() if content != now]
        return self._requests[other].pop(), now, self.contents[other]

    def start(self, restore: str) -> subprocess.Popen[bytes]:
        """Begin the restore."""
        return self.site.console.start("approve", restore, "--user", "ben", "--yes", "--json")

    def is_swapping(self) -> bool:
        """Whether the restore has come to the exchange."""
        path = self.site.console.home / "state" / "locks" / "default.swap"
        if not path.exists():
            return False
        with file_lock(path, blocking=False, shared=True) as is_free:
            return not is_free

    def full_seconds(self) -> tuple[float, float]:
        """How long an undisturbed restore takes: until its exchange begins, and altogether."""
        restore, _, wanted = self.next()
        started, swap_at = time.monotonic(), 0.0
        process = self.start(restore)
        while process.poll() is None:
            if not swap_at and self.is_swapping():
                swap_at = time.monotonic() - started
            time.sleep(0.002)
        output = process.communicate()
        assert process.returncode == 0, output
        assert digest(self.site.path) == wanted
        assert swap_at
        return swap_at, time.monotonic() - started

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    def judge(self, restore: str, old: str, new: str) -> str:
        """What must hold after any kill; returns the state of the request."""
        found = digest(self.site.path)
        assert found in (old, new)
        assert quick_check(self.site.path) == "ok"
        row = self.site.row(restore)
        assert row["state"] in ("requested", "approved", "failed", "succeeded"), row
        assert (row["state"] == "succeeded") == (found == new), row
        assert digest(self.site.path) == found
        assert self.site.console.scratch() == set()
        assert not [name for name in names_in(self.site.console.home) if "restoring" in name or "damaged" in name]
        return str(row["state"])


@pytest.fixture
def crashes(people_site: Site) -> Crashes:
    return Crashes(people_site)


def attempt_again(crashes: Crashes) -> None:
    """A second attempt works."""
    crashes.full_seconds()


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_any_moment_the_content_is_whole_and_the_request_tells_the_truth(crashes: Crashes):
    _, seconds = crashes.full_seconds()
    chance, states = random.Random(3), set()
    for number in range(KILLS):
        restore, old, new = crashes.next()
        process = crashes.start(restore)
        time.sleep(seconds * (number + chance.random()) / KILLS)  # one kill in each slice of the whole duration
        crashes.kill(process)
        states.add(crashes.judge(restore, old, new))
    assert "failed" in states
    attempt_again(crashes)


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_in_the_exchange_the_content_is_whole_and_the_request_tells_the_truth(crashes: Crashes):
    swap_at, seconds = crashes.full_seconds()
    chance, states = random.Random(4), set()
    for number in range(KILLS):
        restore, old, new = crashes.next()
        process = crashes.start(restore)
        wait_for(crashes.is_swapping, process)
        time.sleep((seconds - swap_at) * 0.8 * (number + chance.random()) / KILLS)
        crashes.kill(process)
        states.add(crashes.judge(restore, old, new))
    assert "succeeded" in states <= {"failed", "succeeded"}
    attempt_again(crashes)


def wait_for(is_so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until something holds, while a process lives."""
    while not is_so():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
