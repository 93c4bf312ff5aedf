"""Cron expressions: what one means, in words and in due times, in any time zone. Pure functions.

The five fields are those of Vixie cron, read strictly: numbers, names, ranges, lists, and steps of
``*`` or of a range. What cron implementations read differently (seconds, ``L``, ``W``, ``#``, ``?``,
``5/15``, ranges that run backwards, ``*/2`` beside a second day field) is refused rather than guessed.
As in crontab(5), a day matches when either day field does, and a day field of ``*`` leaves it to the other.

On the two days when clocks change, Vixie cron's rule holds:

- A time with fixed hours that is skipped in spring is due once, when the gap ends. One that comes
  twice in autumn is due once, the first time.
- When the hour field begins with ``*``, real time counts: each real hour has its due times, those
  that come twice included; skipped ones are skipped.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from cron_descriptor import ExpressionDescriptor, Options

from ..core.errors import InputError

MOST_CHARACTERS = 100
"""The longest expression that is read."""

MOST_DUE_TIMES = 7 * 24 * 60
"""The most due times that one question is answered with: a week of every minute."""

LOOK_BACK = timedelta(days=10 * 366)
"""How far back due times are looked for."""

LOOK_AHEAD = timedelta(days=50 * 366)
"""How far ahead due times are looked for: far enough for several times a 29 February."""

SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}

_ONE_DAY = timedelta(days=1)
_ONE_HOUR = timedelta(hours=1)
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_VALUE = "[0-9]{1,2}|[a-z]{3}"
_ITEM = re.compile(rf"(?:\*|(?P<first>{_VALUE})(?:-(?P<last>{_VALUE}))?)(?:/(?P<step>[0-9]{{1,2}}))?")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_EXAMPLES = "Write minute, hour, day of month, month and day of week, such as “15 3 * * *” for every day at 03:15."


@dataclass(frozen=True, kw_only=True)
class _Field:
    """One of the five: its values, and the names they may have."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        """The value that is meant; -1 for a name that is none of this field."""
        if text.isdecimal():
            return int(text)
        return self.names.index(text) + self.low if text in self.names else -1


_FIELDS = (
    _Field(name="minute", low=0, high=59),
    _Field(name="hour", low=0, high=23),
    _Field(name="day of month", low=1, high=31),
    _Field(name="month", low=1, high=12, names=_MONTHS),
    # 0 and 7 are both Sunday.
    _Field(name="day of week", low=0, high=7, names=_WEEKDAYS),
)


@dataclass(frozen=True, kw_only=True)
class Cron:
    """An expression that was read. Made by :func:`parse` only."""

    text: str
    """As it was given, with single blanks."""
    fields: tuple[str, ...]
    """The five fields, shorthands written out, in lower case."""
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""

    @property
    def is_by_real_time(self) -> bool:
        """Whether its due times follow real hours, not the clock on the wall."""
        return self.fields[1].startswith("*")

    @property
    def needs_both_days(self) -> bool:
        """Whether a day must match day of month and day of week. One of them is ``*`` then."""
        return self.fields[2].startswith("*") or self.fields[4].startswith("*")

    @property
    def is_every_day(self) -> bool:
        """Whether every day of its months matches."""
        is_any = len(self.days) == 31, len(self.weekdays) == 7
        return all(is_any) if self.needs_both_days else any(is_any)

    def is_on(self, day: date) -> bool:
        """Whether anything is due on a day of the calendar."""
        if day.month not in self.months:
            return False
        is_day, is_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return is_day and is_weekday if self.needs_both_days else is_day or is_weekday


@lru_cache(maxsize=512)
def parse(text: str) -> Cron:
    """Read an expression of five fields, or one of ``SHORTHANDS``.

    Raises:
        InputError: it is none, or no day of any year matches it; the hint says what to write.
    """
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"A cron expression has at most {MOST_CHARACTERS} characters.", _EXAMPLES)
    given = text.split()
    if any(each.startswith("@") for each in given):
        given = _written_out(text)
    if len(given) != len(_FIELDS):
        raise InputError(f"{text!r} has {len(given)} fields; a cron expression has five.", _EXAMPLES)
    fields = tuple(each.lower() for each in given)
    minutes, hours, days, months, weekdays = (
        _values(field, written) for field, written in zip(_FIELDS, fields, strict=True)
    )
    cron = Cron(
        text=" ".join(text.split()),
        fields=fields,
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(each % 7 for each in weekdays),
    )
    _require_one_meaning(cron)
    _require_possible(cron)
    return cron


def _written_out(text: str) -> list[str]:
    fields = SHORTHANDS.get(text.strip().lower())
    if fields is None:
        raise InputError(f"{text!r} is no known shorthand.", f"Use one of {', '.join(SHORTHANDS)}, or five fields.")
    return fields.split()


def _values(field: _Field, written: str) -> set[int]:
    return {value for item in written.split(",") for value in _item_values(field, item)}


def _item_values(field: _Field, item: str) -> range:
    found = _ITEM.fullmatch(item)
    if found is None:
        raise InputError(f"The {field.name} cannot be {item!r}.", _hint(field))
    step = int(found["step"]) if found["step"] else 1
    if found["first"] is None:
        # Nobody who writes */90 means "at minute 0".
        top = 6 if field.name == "day of week" else field.high
        if not 1 <= step <= top - field.low + 1:
            raise InputError(f"The {field.name} cannot go in steps of {step}.", _hint(field))
        return range(field.low, top + 1, step)
    if found["step"] and found["last"] is None:
        raise InputError(
            f"The {field.name} cannot be {item!r}: only * and ranges have steps.",
            f"Write {found['first']}-{field.high}/{found['step']} or */{found['step']}.",
        )
    first = field.number(found["first"])
    last = first if found["last"] is None else field.number(found["last"])
    if field.name == "day of week" and last == 0 < first:
        last = 7  # fri-sun
    if not (field.low <= first <= last <= field.high and 1 <= step <= field.high):
        raise InputError(f"The {field.name} cannot be {item!r}.", _hint(field))
    return range(first, last + 1, step)


def _hint(field: _Field) -> str:
    names = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
    return (
        f"Use * or {field.low} to {field.high}{names}; lists as in 1,3, ranges from low to high as in 1-5, "
        f"and steps as in */2 or 1-5/2."
    )


def _require_one_meaning(cron: Cron) -> None:
    """Refuse steps of ``*`` beside another day field: cron programs differ in what they make of them."""
    if cron.needs_both_days and len(cron.days) < 31 and len(cron.weekdays) < 7:
        raise InputError(
            "A day of month and a day of week cannot be combined when one of them has steps of *.",
            "Write the steps as a range, as in 1-31/2: then each day that either field names is meant.",
        )


def _require_possible(cron: Cron) -> None:
    """Every weekday comes in every month; only a day that its months do not have never comes."""
    if not cron.needs_both_days or any(min(cron.days) <= _LONGEST_MONTHS[month - 1] for month in cron.months):
        return
    raise InputError(
        f"{cron.text!r} never comes: none of its months has that day.", "Choose another day of month, or another month."
    )


@lru_cache(maxsize=1)
def zone_names() -> tuple[str, ...]:
    """The names of all time zones of this machine, or of the package ``tzdata``."""
    return tuple(sorted(available_timezones() - {"localtime", "Factory"}))


def find_zone(name: str) -> ZoneInfo:
    """The time zone of this name.

    Raises:
        InputError: there is none; the hint names one that is spelled alike.
    """
    # Looked up in a list: as a path, a name could lead to any file.
    if name not in zone_names():
        close = {each.lower(): each for each in zone_names()}
        alike = get_close_matches(name[:MOST_CHARACTERS].lower(), close, n=1)
        hint = f"Did you mean {close[alike[0]]}?" if alike else "Use a name such as Europe/Athens, or UTC."
        raise InputError(f"There is no time zone {name[:MOST_CHARACTERS]!r}.", hint)
    return ZoneInfo(name)


def due_times(
    cron: Cron, zone: ZoneInfo, *, after: datetime, until: datetime, most: int = MOST_DUE_TIMES
) -> list[datetime]:
    """The due times later than ``after`` and not later than ``until``, in UTC, strictly increasing.

    Of more than ``most`` the newest are given, and none older than ``LOOK_BACK`` before ``until``:
    so the cost is bounded however long nobody has asked.
    """
    oldest = max(after, until - LOOK_BACK)
    if oldest >= until:
        return []
    first_wall, last_wall = min(_walls(zone, oldest)), max(_walls(zone, until))
    day = last_wall.date()
    found: set[datetime] = set()
    while day >= first_wall.date() and len(found) < most:
        times = _on_day(cron, zone, day, first_wall=first_wall, last_wall=last_wall)
        found.update(each for each in times if oldest < each <= until)
        day -= _ONE_DAY
    return sorted(found)[-most:]


def next_times(cron: Cron, zone: ZoneInfo, *, after: datetime, count: int = 5) -> list[datetime]:
    """The next ``count`` due times later than ``after``, in UTC; fewer when ``LOOK_AHEAD`` holds fewer."""
    first_wall = min(_walls(zone, after))
    day = first_wall.date()
    last_day = day + LOOK_AHEAD
    found: set[datetime] = set()
    while day <= last_day and len(found) < count:
        found.update(each for each in _on_day(cron, zone, day, first_wall=first_wall) if each > after)
        day += _ONE_DAY
    return sorted(found)[:count]


def _walls(zone: ZoneInfo, moment: datetime) -> list[datetime]:
    """What clocks on the wall show at an instant, by every offset that the zone has within a day of it."""
    around = (moment - _ONE_DAY, moment, moment + _ONE_DAY)
    return [(moment + (each.astimezone(zone).utcoffset() or timedelta())).replace(tzinfo=None) for each in around]


def _on_day(
    cron: Cron, zone: ZoneInfo, day: date, *, first_wall: datetime, last_wall: datetime | None = None
) -> Iterator[datetime]:
    """The due times of a day; hours that lie outside of two times on the wall are left out."""
    if not cron.is_on(day):
        return
    for hour in cron.hours:
        start = datetime.combine(day, time(hour))
        if start + _ONE_HOUR <= first_wall or (last_wall is not None and start > last_wall):
            continue
        for minute in cron.minutes:
            yield from _instants(start.replace(minute=minute, tzinfo=zone), by_real_time=cron.is_by_real_time)


def _instants(wall: datetime, *, by_real_time: bool) -> list[datetime]:
    """When the clock on the wall shows this: once, twice or never (PEP 495)."""
    early, late = wall.astimezone(UTC), wall.replace(fold=1).astimezone(UTC)
    if early == late:
        return [early]
    if early < late:
        return [early, late] if by_real_time else [early]
    return [] if by_real_time else [_end_of_gap(wall, start=late, end=early)]


def _end_of_gap(wall: datetime, *, start: datetime, end: datetime) -> datetime:
    """The first instant after the clock jumped over ``wall``, somewhere between two instants."""
    before = start.astimezone(wall.tzinfo).utcoffset()
    seconds = range(int((end - start).total_seconds()) + 1)

    def has_jumped(second: int) -> bool:
        return (start + timedelta(seconds=second)).astimezone(wall.tzinfo).utcoffset() != before

    return start + timedelta(seconds=bisect_left(seconds, True, key=has_jumped))


@lru_cache(maxsize=512)
def describe(cron: Cron, *, locale: str = "en_US") -> str:
    """The expression in plain words, such as ``At 03:15``.

    ``locale`` is one of cron-descriptor's; names of days and months stay English in all of them.
    """
    written = [_plain(field, text) for field, text in zip(_FIELDS, cron.fields, strict=True)]
    if cron.is_every_day:
        written[2] = written[4] = "*"
    options = Options(locale_code=locale, use_24hour_time_format=True)
    return str(ExpressionDescriptor(" ".join(written), options).get_description())


def _plain(field: _Field, written: str) -> str:
    """A field as its words come out true: steps that do not go on evenly are spelled out."""
    is_weekday = field.name == "day of week"
    span = 7 if is_weekday else field.high - field.low + 1
    values = sorted({each % 7 if is_weekday else each for each in _values(field, written)})
    if len(values) == span:
        return "*"
    # Minutes and hours start again at 0; days and months do not come in equal numbers.
    is_even = re.fullmatch(r"\*/[0-9]+", written) and field.name in ("minute", "hour") and span % int(written[2:]) == 0
    if is_even:
        return written
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}-{values[-1]}"
    return ",".join(map(str, values))
