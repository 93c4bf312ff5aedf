"""Backups that are much smaller than those before them: true copies, perhaps of data that somebody lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from ...models import Backup
from .facts import Look, Problem, Sizes
from .limits import anomaly_share

COMPARED = 5
"""A backup is compared with the median of so many verified ones before it: one odd one among them does not count."""


@dataclass(frozen=True, kw_only=True)
class Drop:
    """A measure that has fallen."""

    what: str
    usual: int
    found: int

    def __str__(self) -> str:
        percent = 100 * (self.usual - self.found) / self.usual
        return f"{self.found:,} {self.what} where {self.usual:,} are usual ({percent:.0f} % fewer)"


def drops(backup: Backup, earlier: Sequence[Sizes | Backup]) -> list[Drop]:
    """The measures in which ``backup`` lies more than ``ANOMALY_PERCENT`` below the median of ``earlier``."""
    share = anomaly_share()
    measures = (
        ("rows", backup.row_count, [each.row_count for each in earlier]),
        ("bytes", backup.size_bytes, [each.size_bytes for each in earlier]),
        # A folder that is not mounted looks like an empty one.
        ("media files", _in_media(backup, "files"), [_in_media(each, "files") for each in earlier]),
        ("bytes of media", _in_media(backup, "content_bytes"), [_in_media(each, "content_bytes") for each in earlier]),
    )
    found: list[Drop] = []
    for what, now, before in measures:
        known = [each for each in before if each is not None]
        if now is None or not known:
            continue
        usual = int(median(known))
        if usual - now > share * usual:
            found.append(Drop(what=what, usual=usual, found=now))
    return found


def _in_media(backup: Sizes | Backup, what: str) -> int | None:
    return None if backup.media is None else int(backup.media[what])


def remarks_on(backup: Backup) -> list[str]:
    """What to note on a backup that was just taken and is not stored yet."""
    verified = Backup.objects.filter(database=backup.database_id, state=Backup.State.VERIFIED).exclude(pk=backup.pk)
    earlier = list(verified.order_by("-taken_at").only("row_count", "size_bytes", "media")[:COMPARED])
    return [f"Unusual: {drop}." for drop in drops(backup, earlier)]


def find_anomalies(look: Look) -> Iterator[Problem]:
    """Is the last backup much smaller than those before it? A newer one of usual size settles it."""
    for each in look.databases:
        if each.last_verified is None:
            continue
        found = drops(each.last_verified, each.earlier)
        if found:
            yield Problem(
                code="anomaly",
                database=each.database.name,
                message=f"The last verified backup holds {', and '.join(map(str, found))}.",
                hint=f"Look whether data was lost: `manage.py backup show {each.last_verified.pk}`. If so, hold an "
                "older backup and restore it; if it was meant, the next backups will be compared with this one.",
            )
