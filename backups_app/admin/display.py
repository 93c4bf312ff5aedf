"""How facts look on the screens: a word first, the exact value on hover, never colour alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import Truncator
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import ngettext_lazy

from ..core.errors import BackupError
from ..models import Job
from .links import reverse

DASH = "–"

_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""What turns the direction of the text after it, in Unicode."""

_CODE = re.compile("`([^`]+)`")
"""What is to be typed, as hints have it."""

# Django's own words for spans of time, which not all of its catalogues have.
_UNITS: dict[str, Any] = {
    "year": ngettext_lazy("%(num)d year", "%(num)d years", "num"),
    "month": ngettext_lazy("%(num)d month", "%(num)d months", "num"),
    "week": ngettext_lazy("%(num)d week", "%(num)d weeks", "num"),
    "day": ngettext_lazy("%(num)d day", "%(num)d days", "num"),
    "hour": ngettext_lazy("%(num)d hour", "%(num)d hours", "num"),
    "minute": ngettext_lazy("%(num)d minute", "%(num)d minutes", "num"),
}

# State or verdict → the look of its badge. The symbol carries the meaning without colour.
_LOOKS = {
    "verified": ("good", "✓"),
    "passed": ("good", "✓"),
    "done": ("good", "✓"),
    "sent": ("good", "✓"),
    "safe": ("good", "✓"),
    "succeeded": ("good", "✓"),
    "queued": ("idle", "○"),
    "requested": ("busy", "…"),
    "approved": ("busy", "…"),
    "running": ("busy", "…"),
    "pending": ("busy", "…"),
    "cancelled": ("idle", "–"),
    "unreachable": ("warn", "?"),
    "key_missing": ("warn", "?"),
    "attention": ("warn", "!"),
    "refused": ("warn", "!"),
    "interrupted": ("warn", "!"),
    "rejected": ("idle", "–"),
    "repairing": ("busy", "…"),
    "pruning": ("busy", "…"),
    "pruned": ("idle", "–"),
    "expired": ("idle", "–"),
    "held": ("idle", "⚑"),
    "rolled_back": ("bad", "↶"),
    "failed": ("bad", "✗"),
    # Verdicts of triage.
    "holds data": ("good", "✓"),
    "schema only": ("idle", "○"),
    "empty": ("idle", "○"),
    "corrupt": ("bad", "✗"),
    "key missing": ("warn", "?"),
    "not a database": ("idle", "–"),
}


def sendable(text: str) -> str:
    """``text`` as a page can hold it, also in the middle of a sentence.

    Half a character, as a hostile schema or JSON has it, is spelled out, and so is what turns the
    direction of the text that follows.
    """
    return _TURNING.sub(lambda found: f"\\u{ord(found[0]):04x}", text.encode(errors="backslashreplace").decode())


def sendable_document(found: Any) -> Any:
    """The same for every text in a JSON document."""
    if isinstance(found, dict):
        return {sendable(name): sendable_document(value) for name, value in found.items()}
    if isinstance(found, list):
        return [sendable_document(each) for each in found]
    return sendable(found) if isinstance(found, str) else found


def worded(text: str, *, most: int | None = None) -> SafeString:
    """``text`` as markup: what stands between backticks, as hints have it, is shown as code. All of it is escaped.

    With ``most``, only so many characters from the beginning; code that does not end there ends with them.
    """
    shown = sendable(text)
    if most is not None and len(shown) > most:
        shown = Truncator(shown).chars(most)
        shown += "`" if shown.count("`") % 2 else ""
    parts = enumerate(_CODE.split(shown))
    return format_html_join("", "{}", ((format_html("<code>{}</code>", each) if n % 2 else each,) for n, each in parts))


def refusal(exc: BackupError) -> SafeString:
    """What is wrong, and what to do."""
    return worded(f"{exc.message} {exc.hint}".strip())


def look_of(value: str) -> tuple[str, str]:
    """The look of the badge of a state or verdict, and its symbol."""
    return _LOOKS.get(value, ("idle", "•"))


def badge(value: str, label: Any) -> SafeString:
    """A state or verdict as a badge; a dash when there is none."""
    if not value:
        return mark_safe(DASH)  # noqa: S308 - a constant  # nosec B308 B703
    look, symbol = look_of(value)
    return format_html(
        '<span class="walsafe-badge walsafe-{}"><span aria-hidden="true">{}</span> {}</span>', look, symbol, label
    )


def size(size_bytes: int | None) -> SafeString | str:
    """A size for people, with the exact bytes on hover."""
    if size_bytes is None:
        return DASH
    exact = _("%(bytes)s bytes") % {"bytes": number_format(size_bytes, force_grouping=True)}
    return format_html('<span class="walsafe-number" title="{}">{}</span>', exact, filesizeformat(size_bytes))


def count(number: int | None) -> SafeString | str:
    """A number with its thousands apart."""
    if number is None:
        return DASH
    return format_html('<span class="walsafe-number">{}</span>', number_format(number, force_grouping=True))


def age(moment: datetime | None) -> SafeString | str:
    """How long ago, with the exact time on hover."""
    if moment is None:
        return _("never")
    is_new = timezone.now() - moment < timedelta(minutes=1)
    ago = _("just now") if is_new else _("%(time)s ago") % {"time": timesince(moment, time_strings=_UNITS, depth=1)}
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), _exact(moment), ago)


def due(moment: datetime) -> SafeString:
    """How long until something that is to come, with the exact time on hover."""
    is_soon = moment - timezone.now() < timedelta(minutes=1)
    ahead = _("now") if is_soon else _("in %(time)s") % {"time": timeuntil(moment, time_strings=_UNITS, depth=1)}
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), _exact(moment), ahead)


def moment(at: datetime | None) -> SafeString | str:
    """A time to the second and with its zone, on the clock of the reader."""
    if at is None:
        return DASH
    return format_html('<time datetime="{}">{}</time>', at.isoformat(), _exact(at))


def _exact(at: datetime) -> str:
    local = timezone.localtime(at)
    return date_format(local, "DATE_FORMAT") + local.strftime(", %H:%M:%S %Z")


def duration(length: timedelta | None) -> str:
    """How long something takes, in the two largest units that matter: ``4 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if length is None:
        return DASH
    seconds = max(0, round(length.total_seconds()))
    if not seconds and length > timedelta():
        return _("under 1 s")
    if seconds < 60:
        return _("%(seconds)d s") % {"seconds": seconds}
    if seconds < 3600:
        return _("%(minutes)d min %(seconds)d s") % {"minutes": seconds // 60, "seconds": seconds % 60}
    if seconds % 3600 < 60:
        return _("%(hours)d h") % {"hours": seconds // 3600}
    return _("%(hours)d h %(minutes)d min") % {"hours": seconds // 3600, "minutes": seconds % 3600 // 60}


def linked(model: str, pk: Any, text: Any = None) -> SafeString:
    """A link to the page of a row of this app."""
    return format_html('<a href="{}"><bdi>{}</bdi></a>', page_url(model, pk), pk if text is None else text)


def page_url(model: str, pk: Any) -> str:
    """The address of the page of a row of this app."""
    return reverse(f"admin:backups_app_{model}_change", args=[pk])


def jobs_table(jobs: Iterable[Job]) -> SafeString | str:
    """Jobs, newest first, with their states."""
    found = [
        {
            "row": job,
            "page": page_url("job", job.pk),
            "badge": badge(job.state, job.get_state_display()),
            "age": age(job.created_at),
        }
        for job in jobs
    ]
    return render_to_string("admin/backups_app/jobs_table.html", {"jobs": found}) if found else DASH


def rows_table(tables: dict[str, int]) -> SafeString | str:
    """Rows per table."""
    if not tables:
        return DASH
    return render_to_string("admin/backups_app/rows_table.html", {"tables": sorted(tables.items())})


def facts_table(facts: dict[str, Any]) -> SafeString | str:
    """The facts of a JSON document, one per row; those without a value are left out."""
    found = [
        (name.replace("_", " "), _fact(value))
        for name, value in sendable_document(facts).items()
        if value not in (None, "", [])
    ]
    return render_to_string("admin/backups_app/facts_table.html", {"facts": found}) if found else DASH


def _fact(value: Any) -> Any:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return worded(value) if isinstance(value, str) else value


def checks_table(checks: Iterable[dict[str, Any]]) -> SafeString | str:
    """The checks of a verification with their evidence."""
    found = [
        {
            "name": check["name"],
            "evidence": sendable(check["evidence"]),
            "badge": badge(
                "passed" if check["ok"] else "attention" if check.get("advisory") else "failed",
                _("ok") if check["ok"] else _("note") if check.get("advisory") else _("failed"),
            ),
        }
        for check in checks
    ]
    return render_to_string("admin/backups_app/checks_table.html", {"checks": found}) if found else DASH
