"""What a rescan found, and the one place that records it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction

from ... import conf
from ...core.chain import Head
from ...inert_text import fitting
from ...models import AuditEvent, Finding, Notification
from .. import audit
from ..audit import Actor
from ..notifications import notify

_TOLD = 20

DAMAGE = {
    "archive_replaced": "Use another backup. Somebody, or the disk, changed the stored bytes: find out which.",
    "archive_deleted": "Use another backup, and find out who can delete at this destination.",
    "manifest_deleted": "The archive alone can be restored with `python -m backups_app.core`; nothing proves its rows.",
    "signature_missing": "Treat the archive as one of unknown origin.",
    "backup_deleted": "Deleted by retention, a deletion is in the chain; this one is not. Find out who did it.",
    "chain_cut": "The newest backups are missing. Make a new one now, and find out who can delete here.",
    "chain_broken": "Treat the backups before this one as possibly exchanged.",
    "rolled_back": "Somebody put an older file in the place of a newer one. Use another backup.",
    "misplaced": "The files of one backup lie in the place of another. Use another backup.",
    "forged": "Nobody with the signing key made it. Do not restore it; find out who can write here.",
    "key_unknown": "If the key is yours, run `manage.py backup rescan --trust KEYFILE` (or its id).",
    "unsigned": "It is from before manifests were signed, or forged. Judge it with `manage.py backup triage`.",
    "manifest_unreadable": "Treat the archive as one of unknown origin.",
    "stray_archive": "Nothing says where it comes from. Judge it with `manage.py backup triage`, or move it away.",
    "stray_manifest": "The chain goes through another backup of this number. Do not restore this one.",
    "not_a_plain_file": "A link or a pipe lies in the place of an object; it was not followed. Remove it.",
    "unreachable": "Check the disk and the permissions. Its content is not judged.",
    "destination_unreachable": "Is a disk not mounted? Nothing is taken for deleted.",
    "destination_empty": "Is a disk not mounted? If not, everything was deleted.",
}
"""Code of each finding that needs attention → what to do."""

NOTES = {
    "unsigned_known": "The catalogue knows its digest. A restore needs `--override unsigned=REASON`.",
    "pruned": "It was deleted on purpose once. Remove it again.",
    "left_over": "An attempt to back up that failed left it. It can be removed.",
    "unknown_file": "It is none of ours; it was left alone.",
}
"""Code of each finding that is only worth knowing → what to do."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One finding."""

    code: str
    message: str
    path: str = ""
    backup: str = ""
    database: str = ""

    @property
    def is_damage(self) -> bool:
        """Whether it needs attention."""
        return self.code in DAMAGE

    @property
    def hint(self) -> str:
        """What to do."""
        return DAMAGE.get(self.code) or NOTES[self.code]

    @property
    def place(self) -> str:
        """The path as text that every database can hold."""
        return self.path.encode("utf-8", "backslashreplace").decode()


@dataclass(kw_only=True)
class Rescan:
    """What a rescan did."""

    destination: str
    is_dry_run: bool
    objects: int = 0
    manifests: int = 0
    known: int = 0
    """Backups that the catalogue knew and whose stored bytes are right."""
    registered: int = 0
    """Backups that came back into the catalogue, or would."""
    databases_added: list[str] = field(default_factory=list)
    trusted_keys: list[str] = field(default_factory=list)
    """Keys whose signatures count from now on."""
    notes: list[str] = field(default_factory=list)
    heads: dict[str, Head] = field(default_factory=dict)
    """Database → where its chain ends at this destination: compare it with the last notification."""
    findings: list[Found] = field(default_factory=list)

    @property
    def damage(self) -> list[Found]:
        """What needs attention."""
        return [each for each in self.findings if each.is_damage]


def record(done: Rescan, *, actor: Actor, now: datetime) -> None:
    """Replace what this host found there before, tell people when that changed, and leave an audit event."""
    host = "" if conf.is_catalog_local() else conf.host_name()
    rows = [
        Finding(
            destination=done.destination,
            host=host,
            code=each.code,
            is_damage=each.is_damage,
            database_name=fitting(each.database, 200),
            about=fitting(each.backup, 32),
            path=each.place,
            message=each.message,
            hint=each.hint,
            found_at=now,
        )
        for each in done.findings
    ]
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        before = Finding.objects.filter(destination=done.destination, host__in={"", host})
        was = set(before.filter(is_damage=True).values_list("code", "path", "about"))
        before.delete()
        Finding.objects.bulk_create(rows, batch_size=500)
        _tell(done, was=was, now=now)
        audit.record(
            "rescan",
            actor=actor,
            outcome=AuditEvent.Outcome.FAILED if done.damage else AuditEvent.Outcome.DONE,
            subject=done.destination,
            detail=_summary(done),
        )


def _summary(done: Rescan) -> str:
    counts: dict[str, int] = {}
    for each in done.findings:
        counts[each.code] = counts.get(each.code, 0) + 1
    found = ", ".join(f"{code} {count}" for code, count in sorted(counts.items())) or "nothing wrong"
    return f"{done.manifests} manifests, {done.registered} registered; {found}"


def _tell(done: Rescan, *, was: set[tuple[str, str, str]], now: datetime) -> None:
    """A failure when there is another one than last time, and the first rescan without any."""
    damage = done.damage
    if {(each.code, each.place, each.backup) for each in damage} == was:
        return
    event = Notification.Event.FAILED if damage else Notification.Event.RECOVERED
    content: dict[str, Any] = {
        "kind": "rescan",
        "destination": done.destination,
        "outcome": _summary(done),
        "findings": [
            {"code": each.code, "path": each.place, "backup": each.backup or None, "message": each.message}
            for each in damage[:_TOLD]
        ],
        "findings_total": len(damage),
    }
    subject = f"Rescan of {done.destination} " + ("found damage" if damage else "finds nothing wrong any more")
    notify(event, subject=subject, content=content, now=now)
