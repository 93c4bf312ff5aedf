"""Days and trends as pictures: SVG made on the server, with a title for each part and a name for the whole.

Coordinates are ready-made text: a template would write them in the language of the reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.utils.formats import date_format
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..services.overview import Day, DayState, Drill, NextRun
from . import display

_STEP = 10
_TREND_WIDTH, _TREND_HEIGHT, _MARGIN = 120, 28, 3


def strip(days: Sequence[Day], *, name: str) -> SafeString:
    """One cell a day, the oldest first."""
    cells = [{**_cell(day), "x": str(index * _STEP + 1)} for index, day in enumerate(days)]
    context = {"cells": cells, "width": str(len(days) * _STEP), "label": summary(days, name=name)}
    return render_to_string("admin/backups_app/strip.html", context)


def chronicle(days: Sequence[Day], *, name: str, drill: Drill | None, runs: Sequence[NextRun]) -> SafeString:
    """The last days of one database: strip, trends, last drill and next runs."""
    context = {
        "strip": strip(days, name=name),
        "summary": summary(days, name=name),
        "trends": [found for of in ("size", "duration") if (found := trend(days, of=of))],
        "drill": display.age(drill.verification.finished_at) if drill else _("never"),
        "runs": [{"row": each, "due": display.due(each.due_at)} for each in runs],
    }
    return render_to_string("admin/backups_app/chronicle.html", context)


def summary(days: Sequence[Day], *, name: str) -> str:
    """What the strip shows, in words."""
    counts = {state: sum(day.state == state for day in days) for state in DayState}
    drills = sum(day.drills_passed + day.drills_failed for day in days)
    parts = [
        ngettext("%(count)d day verified", "%(count)d days verified", counts[DayState.VERIFIED])
        % {"count": counts[DayState.VERIFIED]},
        ngettext("%(count)d failed", "%(count)d failed", counts[DayState.FAILED]) % {"count": counts[DayState.FAILED]},
        ngettext("%(count)d missing", "%(count)d missing", counts[DayState.MISSING])
        % {"count": counts[DayState.MISSING]},
        ngettext("%(count)d drill", "%(count)d drills", drills) % {"count": drills},
    ]
    facts = {"name": display.sendable(name), "days": len(days), "facts": ", ".join(parts)}
    return _("%(name)s, the last %(days)d days: %(facts)s") % facts


def _cell(day: Day) -> dict[str, Any]:
    drill = "failed" if day.drills_failed else "passed" if day.drills_passed else ""
    return {"state": day.state.value, "look": f"walsafe-day-{day.state.value}", "drill": drill, "title": _title(day)}


def _title(day: Day) -> str:
    parts = []
    if day.verified:
        words = ngettext("%(count)d backup verified", "%(count)d backups verified", day.verified)
        parts.append(words % {"count": day.verified})
    if day.failed:
        parts.append(
            ngettext("%(count)d backup failed", "%(count)d backups failed", day.failed) % {"count": day.failed}
        )
    if not parts:
        parts.append(_NOTHING[day.state]())
    if day.drills_passed:
        parts.append(_("drill passed"))
    if day.drills_failed:
        parts.append(_("drill failed"))
    return f"{date_format(day.date, 'DATE_FORMAT')}: {', '.join(parts)}"


_NOTHING: dict[DayState, Callable[[], str]] = {
    DayState.MISSING: lambda: _("missing: no backup, and the one before is too old"),
    DayState.QUIET: lambda: _("no backup; the one before is young enough"),
    DayState.BEFORE: lambda: _("not under care yet"),
    DayState.VERIFIED: lambda: "",
    DayState.FAILED: lambda: "",
}


def trend(days: Sequence[Day], *, of: str) -> dict[str, Any] | None:
    """The course of ``size`` or ``duration``: a picture and the newest value; None with fewer than two days."""
    if of == "size":
        points = [(index, float(day.size_bytes)) for index, day in enumerate(days) if day.size_bytes is not None]
        word = _("Size")
    else:
        points = [(index, day.duration.total_seconds()) for index, day in enumerate(days) if day.duration is not None]
        word = _("Duration")
    if len(points) < 2:
        return None
    first, last = (_value(points[position][1], of=of) for position in (0, -1))
    facts = {"what": word, "first": first, "last": last, "days": len(days)}
    label = _("%(what)s over the last %(days)d days: from %(first)s to %(last)s") % facts
    line = _line(points, count=len(days))
    picture = render_to_string("admin/backups_app/trend.html", {"label": label, "line": line, "end": line.split()[-1]})
    return {"title": word, "picture": picture, "last": last}


def _value(value: float, *, of: str) -> str:
    return filesizeformat(value) if of == "size" else display.duration(timedelta(seconds=value))


def _line(points: Sequence[tuple[int, float]], *, count: int) -> str:
    # From zero, so that a change of a hundredth does not look like a cliff.
    highest = max(value for _index, value in points) or 1.0
    across = (_TREND_WIDTH - 2 * _MARGIN) / max(1, count - 1)
    down = _TREND_HEIGHT - 2 * _MARGIN
    return " ".join(
        f"{_MARGIN + index * across:.1f},{_TREND_HEIGHT - _MARGIN - value / highest * down:.1f}"
        for index, value in points
    )
