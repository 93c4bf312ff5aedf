"""What is wrong, or soon will be, with the keys of the archives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ...core.errors import BackupError
from .report import KeysReport, report_keys

_SHOWN = 10
_PROVE = "Run `manage.py backup prove`, open the challenge with `age -d`, and give the word back."


@dataclass(frozen=True, kw_only=True)
class KeyFinding:
    """Something about keys that needs attention, or only a look."""

    code: str
    message: str
    hint: str
    is_warning: bool = False


def check_keys(*, now: datetime) -> list[KeyFinding]:
    """Everything that speaks against relying on the keys as they are."""
    try:
        report = report_keys(now=now)
    except BackupError as exc:
        return [KeyFinding(code="recipients_unusable", message=exc.message, hint=exc.hint)]
    return [*_unproven(report), *_single(report), *_switched_off(report), *_lost(report)]


def _unproven(report: KeysReport) -> list[KeyFinding]:
    unproven = [each for each in report.configured if not each.is_proven]
    if not unproven:
        return []
    shown = ", ".join(f"{each.recipient.key_id}… ({each.proof})" for each in unproven)
    message = f"Nobody has shown lately that archives for this key can be opened: {shown}."
    return [KeyFinding(code="keys_not_proven", message=message, hint=_PROVE)]


def _single(report: KeysReport) -> list[KeyFinding]:
    if sum(each.is_proven for each in report.configured) != 1:
        return []
    return [
        KeyFinding(
            code="one_proven_recipient",
            message="Only one proven key opens the archives: when it is lost, so are they.",
            hint="Add a second recipient whose identity is kept elsewhere, and prove it.",
            is_warning=True,
        )
    ]


def _switched_off(report: KeysReport) -> list[KeyFinding]:
    if report.configured or not report.encrypted_archives:
        return []
    return [
        KeyFinding(
            code="encryption_off",
            message="Earlier archives are encrypted, and new ones will not be: no recipient is set.",
            hint="Set BACKUPS['AGE_RECIPIENTS'], or the environment, for this process too.",
            is_warning=True,
        )
    ]


def _lost(report: KeysReport) -> list[KeyFinding]:
    if not report.lost_archives:
        return []
    shown = ", ".join(f"{each.pk} ({each.database.name})" for each in report.lost[:_SHOWN])
    more = f" and {report.lost_archives - _SHOWN} more" if report.lost_archives > _SHOWN else ""
    return [
        KeyFinding(
            code="archives_cannot_be_opened",
            message=f"{report.lost_archives} archives can no longer be opened with a key that is set or at hand: "
            f"{shown}{more}.",
            hint="When the old identity still exists: `manage.py backup rekey --all --identity FILE`, or prove its "
            "recipient again. Else make a new backup; those archives are lost.",
        )
    ]
