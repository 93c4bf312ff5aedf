"""Drills: a real restore into scratch, timed, with every check and the site's own questions.

A drill takes the same way as a restore to a new file (:mod:`..core.extract`), so what it measures is
what a restore would take until the file can be used.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from .. import conf
from ..core.archive import Keys, OpenStored
from ..core.errors import UnreachableError, VerificationError
from ..core.extract import extract_archive
from ..core.links import Link
from ..core.manifest import Manifest
from ..core.progress import Watch
from ..core.site_checks import run_site_check
from ..core.verify import Check, check_database
from ..models import Database
from .databases import names_in_settings, still_required


@dataclass(kw_only=True)
class Rehearsal:
    """What a drill measures, filled in while it runs."""

    taken_at: datetime | None
    started_at: datetime
    recovery_seconds: float | None = None
    """From the first look at the store to a proven file; None when it did not come to that."""
    _began: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """From now on time counts."""
        self._began = time.monotonic()

    def stop(self) -> None:
        """The file can be used."""
        self.recovery_seconds = round(time.monotonic() - self._began, 3)

    @property
    def data_age_seconds(self) -> float | None:
        """How old the data was when the drill started: what would be lost."""
        return None if self.taken_at is None else max(0.0, (self.started_at - self.taken_at).total_seconds())


def site_checks_for(database: Database) -> list[str]:
    """The dotted names of the site's own checks of a database: a list is for all, a dict is per name."""
    given = conf.get("DRILL_CHECKS")
    if not isinstance(given, dict):
        return list(given)
    return [check for name in names_in_settings(database) for check in given.get(name, ())]


def rehearse(
    database: Database,
    manifest: Manifest,
    open_stored: OpenStored,
    checks: list[Check],
    *,
    rehearsal: Rehearsal,
    scratch: Path,
    watch: Watch,
    keys: Keys,
    below: Sequence[Link] = (),
) -> None:
    """Restore a stored archive to a new file in ``scratch`` and append every check that was made.

    The time until the file can be used goes to ``rehearsal``. The file is removed with ``scratch``.

    Raises:
        UnreachableError: the store does not answer. KeyMissingError: no key opens it.
        DiskFullError, CancelledError, DeadlineError.
    """
    restored = scratch / "drill.sqlite3"
    try:
        extracted = extract_archive(open_stored, manifest, restored, watch=watch, keys=keys, below=below)
    except UnreachableError:
        raise
    except VerificationError as exc:
        checks.append(Check(name="restore", ok=False, evidence=exc.message))
        return
    rehearsal.stop()
    # quick_check and the census come again below, thoroughly.
    checks += [check for check in extracted if check.name not in ("quick_check", "census")]
    checks.append(Check(name="restore", ok=True, evidence=f"a usable file after {rehearsal.recovery_seconds:.3f} s"))
    checks += check_database(
        restored,
        expected=manifest.census,
        required_tables=still_required(database, manifest),
        is_thorough=True,
        watch=watch,
    )
    limit = float(conf.get("DRILL_CHECK_SECONDS"))
    for name in site_checks_for(database):
        checks.append(run_site_check(name, restored, limit_seconds=limit, watch=watch))
