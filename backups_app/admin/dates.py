"""The dates above a list, found without looking at each row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, Max, Min, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

_MOST_SPANS = 400
"""More are not asked for in one query: a list over as many years has a row with a wrong clock."""


class DatedList(ChangeList):
    """A list whose dates are those of the stock admin, without its cost and its errors at the ends of the calendar."""

    def get_filters(self, request: HttpRequest) -> Any:
        """As the stock list, which fails where a year is given that has no next one."""
        with _as_wrong_lookup():
            return super().get_filters(request)

    def get_results(self, request: HttpRequest) -> None:
        """The rows of the page; the tag that writes the dates asks the rows of the whole list for them later."""
        with _as_wrong_lookup():
            super().get_results(request)
        self.queryset.datetimes = partial(spans_with_rows, self.queryset)


@contextmanager
def _as_wrong_lookup() -> Iterator[None]:
    """What no calendar has in an address is a wrong address, which leads back to the list."""
    try:
        yield
    except (ValueError, OverflowError) as exc:
        raise IncorrectLookupParameters(exc) from exc


def spans_with_rows(rows: QuerySet[Any], field: str, kind: str) -> list[datetime]:
    """The starts of the ``"year"``s, ``"month"``s or ``"day"``s of ``rows``, in the current time zone, in order.

    As :meth:`QuerySet.datetimes`, which on SQLite calls a function of Python for every row: with
    100,000 rows that takes most of the time of a page. This compares with the bounds of each span
    instead, in two queries.
    """
    found = rows.aggregate(first=Min(field), last=Max(field))
    if found["first"] is None:
        return []
    try:
        spans = _spans(found["first"], found["last"], kind)
    except OverflowError:
        return list(type(rows).datetimes(rows, field, kind))  # type: ignore[arg-type]
    counts = rows.aggregate(
        **{
            f"span_{number}": Count("pk", filter=Q(**{f"{field}__gte": start, f"{field}__lt": end}))
            for number, (start, end) in enumerate(spans)
        }
    )
    return [start for number, (start, _end) in enumerate(spans) if counts[f"span_{number}"]]


def _spans(first: datetime, last: datetime, kind: str) -> list[tuple[datetime, datetime]]:
    """Start and end of each span in which a row may be.

    Raises:
        OverflowError: there are too many, or one of them has no place in a calendar.
    """
    last_day = timezone.localtime(last).date()
    starts = [_start(timezone.localtime(first).date(), kind)]
    while starts[-1] <= last_day:
        starts.append(_next(starts[-1], kind))
        if len(starts) > _MOST_SPANS:
            raise OverflowError
    bounds = [_midnight(each) for each in starts]
    for each in bounds:
        each.astimezone(UTC)  # the catalogue keeps it so
    return list(pairwise(bounds))


def _start(day: date, kind: str) -> date:
    """The first day of the span in which a day is."""
    return day.replace(**{"year": {"month": 1, "day": 1}, "month": {"day": 1}, "day": {}}[kind])


def _next(start: date, kind: str) -> date:
    """The first day of the span after this one."""
    return _start(start + timedelta(days={"year": 366, "month": 31, "day": 1}[kind]), kind)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=timezone.get_current_timezone())
