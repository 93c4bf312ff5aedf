"""How facts look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone, translation

from backups_app.admin import display
from backups_app.admin.display import age, badge, checks_table, count, rows_table, size
from backups_app.models import AuditEvent, Backup, Copy, Job, Verification
from tests.admin.markup import Page


def parsed(html: str) -> Page:
    return Page(f"<body>{html}</body>")


STATES = {
    *Backup.State.values,
    *Copy.State.values,
    *Verification.Verdict.values,
    *AuditEvent.Outcome.values,
    *Job.State.values,
    "safe",
    "attention",
}


@pytest.mark.parametrize("state", sorted(STATES))
def test_every_state_has_a_look_a_symbol_and_its_word(state: str):
    (shown,) = parsed(badge(state, f"word {state}")).all("span", "walsafe-badge")
    (symbol,) = [each for each in parsed(badge(state, "word")).all("span") if "aria-hidden" in each.attributes]
    assert len(symbol.text.strip()) == 1
    assert symbol.text.strip() != "•"
    assert shown.text.strip().endswith(f"word {state}")
    assert len(shown.classes & {f"walsafe-{look}" for look in ("good", "busy", "idle", "warn", "bad")}) == 1


def test_only_what_is_proven_looks_good():
    good = {state for state in STATES if "walsafe-good" in badge(state, "word")}
    assert good == {"verified", "passed", "done", "safe", "succeeded"}


def test_states_that_mean_different_things_have_different_symbols():
    symbols = {state: badge(state, "")[badge(state, "").index('"true">') + 7] for state in STATES}
    assert len({symbols[each] for each in ("verified", "failed", "unreachable", "running", "cancelled", "queued")}) == 6


def test_an_unknown_state_still_shows_its_word():
    assert "odd" in badge("something new", "odd")


def test_no_state_is_a_dash():
    assert badge("", "") == "–"


def test_a_label_with_markup_is_inert():
    assert "<b>" not in badge("failed", "<b>x</b>")


def test_an_unknown_size_is_a_dash_and_zero_is_not():
    assert size(None) == "–"
    assert count(None) == "–"
    assert "0" in size(0)
    assert "0" in count(0)


def test_a_size_keeps_its_exact_bytes_on_hover():
    (shown,) = parsed(size(1_234_567)).all("span")
    assert shown.attributes["title"] == "1,234,567 bytes"
    assert shown.text.replace("\xa0", " ") == "1.2 MB"


def test_no_moment_is_never():
    assert age(None) == "never"


@pytest.mark.parametrize(
    ("ago", "words"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=5), "just now"),
        (timedelta(minutes=5, seconds=3), "5 minutes ago"),
        (timedelta(hours=3, minutes=59), "3 hours ago"),
        (timedelta(days=20), "2 weeks ago"),
    ],
)
def test_an_age_is_in_words(ago: timedelta, words: str):
    (shown,) = parsed(age(timezone.now() - ago)).all("time")
    assert shown.text.replace("\xa0", " ") == words


@pytest.mark.parametrize(
    ("hour", "exact"), [(0, "00:30:07 UTC"), (9, "09:30:07 UTC"), (12, "12:30:07 UTC"), (23, "23:30:07 UTC")]
)
def test_the_exact_time_is_on_hover(hour: int, exact: str):
    moment = datetime(2024, 5, 6, hour, 30, 7, tzinfo=UTC)
    (shown,) = parsed(age(moment)).all("time")
    assert shown.attributes["title"] == f"May 6, 2024, {exact}"
    assert shown.attributes["datetime"] == moment.isoformat()


def test_the_exact_time_is_in_the_zone_of_the_reader():
    with timezone.override("Europe/Athens"):
        (shown,) = parsed(age(datetime(2024, 7, 6, 22, 0, 0, tzinfo=UTC))).all("time")
    assert shown.attributes["title"] == "July 7, 2024, 01:00:00 EEST"


def test_tables_are_sorted_with_their_rows_grouped():
    cells = parsed(rows_table({"b": 1_234_567, "a": 0})).cells()
    assert cells == ["Table", "Rows", "a", "0", "b", "1,234,567"]


def test_numbers_follow_the_language_of_the_reader():
    with translation.override("de"):
        assert "1.234.567" in count(1_234_567)
        assert "1.234.567" in rows_table({"a": 1_234_567})


def test_no_tables_and_no_checks_are_a_dash():
    assert rows_table({}) == "–"
    assert checks_table([]) == "–"


def test_a_check_is_ok_a_note_or_failed():
    checks = [
        {"name": "one", "ok": True, "evidence": "e"},
        {"name": "two", "ok": False, "evidence": "e", "advisory": True},
        {"name": "three", "ok": False, "evidence": "e", "advisory": False},
        {"name": "four", "ok": False, "evidence": "e"},
    ]
    assert parsed(checks_table(checks)).badges == ["✓ ok", "! note", "✗ failed", "✗ failed"]


def test_half_a_character_in_evidence_can_be_sent_to_a_browser():
    shown = checks_table([{"name": "foreign_key_check", "ok": False, "evidence": "rows of a\udcffb", "advisory": True}])
    assert "\\udcff" in shown.encode().decode()
    assert display.DASH not in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.4, "under 1 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (360000, "100 h"),
    ],
)
def test_a_duration_is_told_in_the_two_units_that_matter(seconds: float, words: str):
    assert display.duration(timedelta(seconds=seconds)) == words


def test_no_duration_is_a_dash():
    assert display.duration(None) == "–"


def test_what_stands_between_backticks_is_code():
    shown = display.worded("Run `backup create`, then `backup list`.")
    assert shown == "Run <code>backup create</code>, then <code>backup list</code>."


def test_code_that_is_cut_stays_code():
    assert display.worded("Run `backup create shop` again.", most=17) == "Run <code>backup crea…</code>"
    assert display.worded("Run `backup`.", most=80) == "Run <code>backup</code>."


def test_words_with_code_are_inert():
    shown = display.worded("Run `<script>` on <b>\u202e` and \udcff.")
    assert shown == "Run <code>&lt;script&gt;</code> on &lt;b&gt;\\u202e` and \\udcff."


def test_a_moment_tells_its_zone_and_no_moment_is_a_dash():
    with timezone.override("Europe/Athens"):
        (shown,) = parsed(display.moment(datetime(2024, 7, 6, 22, 0, 0, tzinfo=UTC))).all("time")
    assert shown.text == "July 7, 2024, 01:00:00 EEST"
    assert display.moment(None) == "–"


def test_the_facts_of_a_document_are_words():
    table = parsed(display.facts_table({"is_ok": False, "was_ok": True, "names": ["a", "b"], "gone": None}))
    assert [each.text for each in table.all("th")] == ["is ok", "was ok", "names"]
    assert [each.text.strip() for each in table.all("td")] == ["no", "yes", "a, b"]
