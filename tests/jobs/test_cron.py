"""Cron expressions: what is read, what is refused, and that each due time comes once, also on the days of change."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from backups_app.core.errors import InputError
from backups_app.jobs.cron import (
    MOST_DUE_TIMES,
    SHORTHANDS,
    describe,
    due_times,
    find_zone,
    next_times,
    parse,
    zone_names,
)

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

# Zone → the UTC instants at which its clock jumps: in spring, and back in autumn.
CHANGES = {
    "Europe/Athens": (datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)),
    "Europe/Berlin": (datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)),
    "America/New_York": (datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC)),
    # Half an hour only.
    "Australia/Lord_Howe": (datetime(2026, 10, 3, 15, 30, tzinfo=UTC), datetime(2026, 4, 4, 15, tzinfo=UTC)),
}
DAYS = [(zone, instant) for zone, both in CHANGES.items() for instant in both]
# No change at all, and an offset of 5:45.
DAYS.append(("Asia/Kathmandu", datetime(2026, 3, 28, 18, 15, tzinfo=UTC)))
EXPRESSIONS = [
    "15 3 * * *",
    "30 2 * * *",
    "0 2,3,4 * * *",
    "45 1 * * *",
    "*/15 0-4 * * *",
    "59 23 * * *",
    "0 0 * * *",
    "* 2 * * *",
    "* * * * *",
    "@hourly",
    "30 * * * *",
    "*/20 */2 * * *",
    "10 * 29 3 *",
    "15 3 * * sun",
]


def local(zone: str, *times: datetime) -> list[str]:
    return [f"{each.astimezone(ZoneInfo(zone)):%d %H:%M %z}" for each in times]


def expected(expression: str, zone: str, *, after: datetime, until: datetime) -> list[datetime]:
    """The rule of Vixie cron told another way: minute by minute, asking another library for the fields."""
    written = SHORTHANDS.get(expression, expression)
    found, moment, tz = [], after + MINUTE, ZoneInfo(zone)
    while moment <= until:
        wall = moment.astimezone(tz)
        skipped: list[datetime] = []
        jump = (wall.utcoffset() or HOUR) - ((moment - MINUTE).astimezone(tz).utcoffset() or HOUR)
        if jump > timedelta(0):
            naive = wall.replace(tzinfo=None)
            skipped = [naive - MINUTE * back for back in range(1, jump // MINUTE + 1)]
        matches = croniter.match(written, wall.replace(tzinfo=None, fold=0))
        if written.split()[1].startswith("*"):
            is_due = matches
        else:
            is_due = (matches and wall.fold == 0) or any(croniter.match(written, each) for each in skipped)
        if is_due:
            found.append(moment)
        moment += MINUTE
    return found


# The days when clocks change


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize(("zone", "change"), DAYS)
def test_looking_every_minute_across_a_change_gives_each_due_time_once(zone: str, change: datetime, expression: str):
    cron, tz = parse(expression), find_zone(zone)
    start, end = change - 3 * HOUR, change + 3 * HOUR
    moment, fired = start, []
    while moment < end:
        fired += due_times(cron, tz, after=moment, until=moment + MINUTE)
        moment += MINUTE
    assert fired == expected(expression, zone, after=start, until=end)
    assert len(fired) == len(set(fired))
    assert fired == due_times(cron, tz, after=start, until=end)


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("expression", ["30 2 * * *", "30 1 * * *", "15 2 * * *", "45 1 * * *", "30 3 * * *"])
def test_a_daily_time_comes_once_on_every_day_of_a_year(zone: str, expression: str):
    start = datetime(2026, 1, 1, 12, tzinfo=UTC)
    found = due_times(parse(expression), find_zone(zone), after=start, until=start + 365 * DAY)
    days = [each.astimezone(ZoneInfo(zone)).date() for each in found]
    assert len(days) == len(set(days)) == 365


@pytest.mark.parametrize(
    ("zone", "expression", "due"),
    [
        ("Europe/Athens", "30 3 * * *", ["29 04:00 +0300"]),
        ("Europe/Athens", "*/15 3 * * *", ["29 04:00 +0300"]),
        ("Europe/Athens", "0 3,4 * * *", ["29 04:00 +0300"]),
        ("Europe/Athens", "0 4 * * *", ["29 04:00 +0300"]),
        ("Europe/Athens", "30 2-4 * * *", ["29 02:30 +0200", "29 04:00 +0300", "29 04:30 +0300"]),
        ("Europe/Berlin", "30 2 * * *", ["29 03:00 +0200"]),
        ("America/New_York", "30 2 * * *", ["08 03:00 -0400"]),
        ("Australia/Lord_Howe", "15 2 * * *", ["04 02:30 +1100"]),
        ("Australia/Lord_Howe", "30 2 * * *", ["04 02:30 +1100"]),
    ],
)
def test_a_time_that_is_skipped_in_spring_comes_when_the_gap_ends(zone: str, expression: str, due: list[str]):
    change = CHANGES[zone][0]
    found = due_times(parse(expression), find_zone(zone), after=change - 2 * HOUR, until=change + 2 * HOUR)
    assert local(zone, *found) == due


@pytest.mark.parametrize(
    ("zone", "expression", "due"),
    [
        ("Europe/Athens", "30 3 * * *", ["25 03:30 +0300"]),
        ("Europe/Athens", "0 4 * * *", ["25 04:00 +0200"]),
        ("Europe/Berlin", "0,30 2 * * *", ["25 02:00 +0200", "25 02:30 +0200"]),
        ("America/New_York", "30 1 * * *", ["01 01:30 -0400"]),
        ("Australia/Lord_Howe", "45 1 * * *", ["05 01:45 +1100"]),
        ("Australia/Lord_Howe", "15 1 * * *", ["05 01:15 +1100"]),
    ],
)
def test_a_time_that_comes_twice_in_autumn_is_due_the_first_time_only(zone: str, expression: str, due: list[str]):
    change = CHANGES[zone][1]
    found = due_times(parse(expression), find_zone(zone), after=change - 2 * HOUR, until=change + 2 * HOUR)
    assert local(zone, *found) == due


def test_every_hour_goes_by_real_time_on_both_days():
    cron, zone = parse("@hourly"), find_zone("Europe/Athens")
    for change in CHANGES["Europe/Athens"]:
        found = due_times(cron, zone, after=change - 3 * HOUR, until=change + 3 * HOUR)
        assert {later - earlier for earlier, later in pairwise(found)} == {HOUR}
        assert len(found) == 6
    walls = local("Europe/Athens", *found)
    assert ("25 03:00 +0300" in walls, "25 03:00 +0200" in walls) == (True, True)


def test_a_day_that_a_zone_left_out_has_its_times_when_the_next_day_begins():
    """Samoa crossed the date line: 29 December 2011 was followed by the 31st."""
    start, end = datetime(2011, 12, 29, 12, tzinfo=UTC), datetime(2012, 1, 1, tzinfo=UTC)
    found = due_times(parse("0 3 30 12 *"), find_zone("Pacific/Apia"), after=start, until=end)
    assert local("Pacific/Apia", *found) == ["31 00:00 +1400"]
    assert due_times(parse("0 * 30 12 *"), find_zone("Pacific/Apia"), after=start, until=end) == []


# Intervals


@st.composite
def written_field(draw: st.DrawFn, low: int, high: int) -> str:
    """A field that every cron program reads alike."""
    if draw(st.booleans()):
        return "*"
    items = []
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        if first == last:
            items.append(str(first))
        else:
            step = draw(st.integers(1, high - low))
            items.append(f"{first}-{last}" + (f"/{step}" if step > 1 else ""))
    return ",".join(items)


possible_days = st.one_of(written_field(1, 28), st.just("*"))
expressions = st.tuples(
    written_field(0, 59), written_field(0, 23), possible_days, written_field(1, 12), written_field(0, 6)
).map(" ".join)
instants = st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)).map(lambda each: each.replace(tzinfo=UTC))  # noqa: DTZ001
zones = st.sampled_from([*CHANGES, "UTC", "Asia/Kathmandu"])


@given(expressions, zones, instants, st.lists(st.integers(0, 3 * 24 * 3600), max_size=4))
@settings(deadline=None, max_examples=60)
def test_intervals_one_after_another_give_what_their_union_gives(
    expression: str, zone: str, start: datetime, offsets: list[int]
):
    cron, tz = parse(expression), find_zone(zone)
    cuts = [start, *sorted(start + timedelta(seconds=each) for each in offsets), start + 3 * DAY]
    whole = due_times(cron, tz, after=start, until=start + 3 * DAY)
    parts = [each for one, other in pairwise(cuts) for each in due_times(cron, tz, after=one, until=other)]
    assert parts == whole
    assert all(earlier < later for earlier, later in pairwise(whole))
    assert all(start < each <= start + 3 * DAY for each in whole)
    assert all(each.tzinfo is UTC and each.second == each.microsecond == 0 for each in whole)


@given(expressions, zones, instants)
@settings(deadline=None, max_examples=60)
def test_the_next_times_are_the_due_times_to_come(expression: str, zone: str, start: datetime):
    cron, tz = parse(expression), find_zone(zone)
    coming = next_times(cron, tz, after=start, count=5)
    assert len(coming) == 5
    assert coming == due_times(cron, tz, after=start, until=coming[-1])


@given(expressions, instants)
@settings(deadline=None, max_examples=100)
def test_another_library_reads_the_fields_alike(expression: str, start: datetime):
    other = croniter(expression, start.replace(tzinfo=None))
    theirs = [other.get_next(datetime).replace(tzinfo=UTC) for _ in range(5)]
    assert next_times(parse(expression), find_zone("UTC"), after=start, count=5) == theirs


def test_the_interval_is_open_at_its_start_and_closed_at_its_end():
    cron, zone, due = parse("15 3 * * *"), find_zone("UTC"), datetime(2026, 5, 5, 3, 15, tzinfo=UTC)
    assert due_times(cron, zone, after=due - MINUTE, until=due) == [due]
    assert due_times(cron, zone, after=due, until=due + MINUTE) == []
    assert due_times(cron, zone, after=due, until=due) == []
    assert due_times(cron, zone, after=due, until=due - DAY) == []
    assert next_times(cron, zone, after=due, count=1) == [due + DAY]


def test_after_a_year_of_absence_the_newest_are_given_at_a_bounded_cost():
    zone, now = find_zone("Europe/Athens"), datetime(2026, 11, 1, tzinfo=UTC)
    started = time.perf_counter()
    found = due_times(parse("* * * * *"), zone, after=now - 365 * DAY, until=now)
    assert time.perf_counter() - started < 2
    assert len(found) == MOST_DUE_TIMES
    assert found[-1] == now
    assert {later - earlier for earlier, later in pairwise(found)} == {MINUTE}


def test_a_yearly_time_that_was_missed_years_ago_is_still_found():
    zone, now = find_zone("UTC"), datetime(2026, 11, 1, tzinfo=UTC)
    found = due_times(parse("@yearly"), zone, after=now - 3 * 366 * DAY, until=now)
    assert [each.year for each in found] == [2024, 2025, 2026]
    assert due_times(parse("@yearly"), zone, after=datetime(1970, 1, 1, tzinfo=UTC), until=now)[0].year == 2017


def test_a_leap_day_has_its_next_times():
    found = next_times(parse("0 0 29 2 *"), find_zone("UTC"), after=datetime(2026, 1, 1, tzinfo=UTC))
    assert [each.year for each in found] == [2028, 2032, 2036, 2040, 2044]


# What is read


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@YEARLY", "0 0 1 1 *"),
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * SUN", "0 0 * * 0"),
        ("0 0 * * fri-sun", "0 0 * * 5,6,0"),
        ("0 0 * * 0-7", "0 0 * * *"),
        ("0 0 1 JAN-Mar *", "0 0 1 1-3 *"),
        ("0-30/10 * * * *", "0,10,20,30 * * * *"),
        ("5-5 * * * *", "5 * * * *"),
        ("  15\t3  * * *\n", "15 3 * * *"),
    ],
)
def test_two_ways_to_write_the_same(text: str, same: str):
    zone, start = find_zone("Europe/Athens"), datetime(2026, 3, 1, tzinfo=UTC)
    assert next_times(parse(text), zone, after=start, count=20) == next_times(parse(same), zone, after=start, count=20)
    assert "\n" not in parse(text).text


def test_two_day_fields_mean_either_and_a_star_leaves_it_to_the_other():
    zone, start = find_zone("UTC"), datetime(2026, 3, 1, 12, tzinfo=UTC)

    def days(text: str) -> list[int]:
        return [each.day for each in due_times(parse(text), zone, after=start, until=start + 14 * DAY)]

    assert days("0 0 13 * fri") == [6, 13]
    assert days("0 0 10 * fri") == [6, 10, 13]
    assert days("0 0 10 * *") == [10]
    assert days("0 0 * * fri") == [6, 13]
    assert days("0 0 */7 * *") == [8, 15]
    assert days("0 0 1-31 * fri") == list(range(2, 16))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "*",
        "* * * *",
        "* * * * * *",
        "0 * * * * * 2026",
        "@reboot",
        "@every 5m",
        "@daily @daily",
        "@",
        "R * * * *",
        "H 3 * * *",
        "H(0-5) 3 * * *",
        "0 3 L * *",
        "0 3 15W * *",
        "0 3 * * 1#2",
        "0 3 * * 5L",
        "0 3 ? * *",
        "5/15 * * * *",
        "*/90 * * * *",
        "*/0 * * * *",
        "0-10/0 * * * *",
        "*/ * * * *",
        "*-5 * * * *",
        "60 * * * *",
        "-1 * * * *",
        "1. * * * *",
        "1,,2 * * * *",
        "1, * * * *",
        "1-2-3 * * * *",
        "0 24 * * *",
        "0 22-2 * * *",
        "0 3 0 * *",
        "0 3 32 * *",
        "0 3 * 0 *",
        "0 3 * 13 *",
        "0 3 * foo *",
        "0 3 * mon *",
        "mon 3 * * *",
        "0 3 * * 8",
        "0 3 * * jan",
        "0 3 * * fri-mon",
        "0 3 */2 * mon",
        "0 3 1 * */2",
        "0 3 30 2 *",
        "0 3 31 4,6,9,11 *",
        "0 3 30,31 feb *",
        "٣ * * * *",
        "² * * * *",
        "1 * * * *\x00",
        "<script>alert(1)</script> * * * *",
        "'; DROP TABLE x; -- * *",
        "* * * * * # a note",
        "9" * 99 + " * * * *",
        "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36 * * * *",
    ],
)
def test_what_cannot_be_read_is_refused_with_a_hint(text: str):
    with pytest.raises(InputError) as refusal:
        parse(text)
    assert refusal.value.message
    assert refusal.value.hint


@given(st.text(max_size=120))
@settings(max_examples=300)
def test_no_text_whatever_breaks_the_reading(text: str):
    try:
        cron = parse(text)
    except InputError:
        return
    assert describe(cron)


# Time zones


@pytest.mark.parametrize("name", ["Europe/Athens", "UTC", "Asia/Kathmandu", "America/Argentina/Buenos_Aires"])
def test_a_zone_is_found_by_its_name(name: str):
    assert find_zone(name) == ZoneInfo(name)
    assert name in zone_names()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Europe",
        "Europe/Nowhere",
        "../../../etc/passwd",
        "/etc/passwd",
        "Europe/../UTC",
        "localtime",
        "Factory",
        "right/UTC",
        "\x00",
        "a" * 5000,
        "Europe/Athens ",
    ],
)
def test_what_is_no_zone_is_refused_with_a_hint(name: str):
    with pytest.raises(InputError) as refusal:
        find_zone(name)
    assert refusal.value.hint
    assert len(refusal.value.message) < 500


def test_a_zone_that_is_spelled_nearly_right_is_suggested():
    with pytest.raises(InputError) as refusal:
        find_zone("europe/athens")
    assert refusal.value.hint == "Did you mean Europe/Athens?"


# Words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("15 3 * * *", "At 03:15"),
        ("@hourly", "Every hour"),
        ("* * * * *", "Every minute"),
        ("*/15 * * * *", "Every 15 minutes"),
        ("0 */2 * * *", "Every 2 hours"),
        ("0 0 13 * 5", "At 00:00, on day 13 of the month, or on Friday"),
        ("0 9-17/2 * * 1-5", "At 09:00, 11:00, 13:00, 15:00 and 17:00, Monday through Friday"),
        # 45 minutes, then 15: not every 45 minutes.
        ("*/45 * * * *", "At 0 and 45 minutes past the hour"),
        ("0 */5 * * *", "At 00:00, 05:00, 10:00, 15:00 and 20:00"),
        # Either day field, and one of them is every day.
        ("0 0 1-31 * mon", "At 00:00"),
        ("0 3 * * fri-sun", "At 03:00, only on Sunday, Friday, and Saturday"),
        ("0 3 * * 0-7", "At 03:00"),
    ],
)
def test_an_expression_in_words(text: str, words: str):
    assert describe(parse(text)) == words


@given(expressions)
@settings(deadline=None)
def test_every_expression_has_words(expression: str):
    words = describe(parse(expression))
    assert words
    assert "%" not in words
    assert "{" not in words
