"""Retention as a pure function: what is kept, why, and what no policy can delete."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backups_app.core.errors import RefusedError
from backups_app.core.retention import RULES, Candidate, Decision, Policy, plan
from backups_app.models import Database

NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
LOCAL = frozenset({"local"})


def backup(name: str, *, hours: float = 0, **facts: object) -> Candidate:
    """A verified backup of some hours ago."""
    at = NOW - timedelta(hours=hours)
    values = {"state": "verified", "verified_at": LOCAL, "created_at": at, "at": at, **facts}
    return Candidate(id=name, identity="5e6f", **values)  # type: ignore[arg-type]


def daily(count: int) -> list[Candidate]:
    """One backup per day, the newest first."""
    return [backup(f"d{number}", hours=24 * number) for number in range(count)]


def deleted(backups: list[Candidate], policy: Policy) -> set[str]:
    return {each.id for each in plan(backups, policy, now=NOW) if not each.is_kept}


def reason(backups: list[Candidate], policy: Policy, name: str) -> str:
    return next(each.reason for each in plan(backups, policy, now=NOW) if each.id == name)


def test_without_a_policy_everything_is_kept():
    found = plan([*daily(3), backup("bad", state="failed", hours=10_000)], Policy(), now=NOW)
    assert all(each.is_kept for each in found)
    assert {each.reason for each in found} == {"no policy is set, so everything is kept"}


def test_the_last_ones_are_kept():
    assert deleted(daily(5), Policy(keep_last=2)) == {"d2", "d3", "d4"}
    assert reason(daily(5), Policy(keep_last=2), "d1") == "last 2 of 2"


def test_what_a_kept_backup_needs_is_kept_whatever_it_needs_in_turn():
    chain = [
        backup("top", refers_to=frozenset({"middle"})),
        backup("middle", hours=1, refers_to=frozenset({"full"})),
        backup("full", hours=2),
        backup("old", hours=3, refers_to=frozenset({"older"})),
        backup("older", hours=4),
    ]
    assert deleted(chain, Policy(keep_last=1)) == {"old", "older"}
    assert reason(chain, Policy(keep_last=1), "middle") == "backup top, which is kept, needs it"
    assert reason(chain, Policy(keep_last=1), "full") == "backup middle, which is kept, needs it"


def test_what_has_no_files_needs_nothing():
    chain = [
        backup("new"),
        backup("bare", hours=1, has_files=False, refers_to=frozenset({"base"})),
        backup("base", hours=2),
    ]
    assert deleted(chain, Policy(keep_last=1)) == {"base"}


def test_of_each_day_the_newest_is_kept():
    hourly = [backup(f"h{number}", hours=number) for number in range(48)]
    kept = {each.id for each in hourly} - deleted(hourly, Policy(keep_daily=2))
    assert kept == {"h0", "h13"}  # now is 12:30
    assert reason(hourly, Policy(keep_daily=2), "h13") == "daily 2026-03-03"


def test_days_without_a_backup_take_no_slot():
    gaps = [backup("a", hours=0), backup("b", hours=24 * 30), backup("c", hours=24 * 90)]
    assert deleted(gaps, Policy(keep_daily=2)) == {"c"}


@pytest.mark.parametrize(
    ("rule", "slot"),
    [
        ("keep_hourly", "hourly 2026-03-04 12:00"),
        ("keep_daily", "daily 2026-03-04"),
        ("keep_weekly", "weekly 2026-W10"),
        ("keep_monthly", "monthly 2026-03"),
        ("keep_yearly", "yearly 2026"),
        ("keep_within_days", "within 1 days"),
    ],
)
def test_each_rule_names_its_slot(rule: str, slot: str):
    assert slot in reason(daily(3), Policy(**{rule: 1}), "d0")


def test_hours_are_those_of_utc_whatever_the_zone_of_the_times():
    athens = datetime.fromisoformat("2026-03-04T01:30:00+02:00")
    late = backup("late", created_at=athens, at=athens)
    assert "daily 2026-03-03" in reason([late], Policy(keep_daily=1), "late")


def test_rules_add_up():
    policy = Policy(keep_last=1, keep_monthly=3)
    assert deleted(daily(70), policy) == {each.id for each in daily(70)} - {"d0", "d4", "d32"}


def test_a_span_keeps_what_is_not_older():
    assert deleted(daily(5), Policy(keep_within_days=2)) == {"d3", "d4"}


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_only_verified_backups_fill_a_slot(state: str):
    found = [backup("good"), backup("bad", state=state, hours=1, verified_at=frozenset()), backup("older", hours=2)]
    assert deleted(found, Policy(keep_last=2)) == set()


def test_a_verified_one_whose_copies_cannot_be_judged_fills_no_slot_and_stays():
    found = [backup("good"), backup("unknown", hours=1, verified_at=frozenset()), backup("older", hours=2)]
    assert deleted(found, Policy(keep_last=2)) == set()
    assert "could not be judged" in reason(found, Policy(keep_last=2), "unknown")


def test_held_ones_stay_and_fill_no_slot():
    found = [backup("new"), backup("held", hours=1, is_held=True), backup("b", hours=2), backup("c", hours=3)]
    assert deleted(found, Policy(keep_last=2)) == {"c"}
    assert deleted([replace(each, is_held=False) for each in found], Policy(keep_last=2)) == {"b", "c"}


def test_what_a_restore_needs_stays():
    assert deleted([*daily(3), backup("asked", hours=999, is_needed=True)], Policy(keep_last=1)) == {"d1", "d2"}


def test_a_safety_backup_stays_within_its_window_and_fills_no_slot():
    policy = Policy(keep_last=2, safety_days=2)
    found = [*daily(3), backup("young", hours=12, is_safety=True), backup("old", hours=72, is_safety=True)]
    assert deleted(found, policy) == {"d2", "old"}
    assert reason(found, policy, "young") == "safety backup, kept for 2 days"


def test_the_newest_verified_one_stays_though_it_is_an_old_safety_backup():
    found = [backup("safety", hours=100, is_safety=True), backup("before", hours=200)]
    assert deleted(found, Policy(keep_last=1, safety_days=1)) == set()


def test_files_of_failed_backups_stay_for_their_time():
    bad = {"state": "failed", "verified_at": frozenset()}
    found = [backup("good"), backup("young", hours=30, **bad), backup("old", hours=24 * 8, **bad)]
    assert deleted(found, Policy(keep_last=1, failed_days=7)) == {"old"}


def test_what_was_found_bad_lately_stays_though_it_is_old():
    bad = {"state": "failed", "verified_at": frozenset(), "failed_at": NOW - timedelta(days=1)}
    assert deleted([backup("good"), backup("old", hours=9999, **bad)], Policy(keep_last=1, failed_days=7)) == set()


def test_records_without_files_stay():
    found = [backup("good"), backup("none", state="failed", hours=9999, has_files=False, verified_at=frozenset())]
    assert deleted(found, Policy(keep_last=1)) == set()


def test_the_last_verified_copy_at_each_destination_stays():
    found = [backup("new"), backup("b", hours=1), backup("far", hours=2, verified_at=frozenset({"far", "local"}))]
    assert deleted(found, Policy(keep_last=1)) == {"b"}
    assert reason(found, Policy(keep_last=1), "far") == "the newest verified copy at far"


def test_nothing_goes_while_nothing_is_verified():
    found = [
        backup("a", state="cancelled", hours=1, verified_at=frozenset()),
        backup("b", hours=9999, verified_at=frozenset()),
    ]
    assert deleted(found, Policy(keep_last=1)) == set()


def test_what_runs_is_not_touched():
    found = [backup("good"), backup("running", state="running", hours=9999, verified_at=frozenset())]
    assert deleted(found, Policy(keep_last=1)) == set()


def test_a_backup_from_the_future_stays_and_stands_for_no_other():
    found = [backup("tomorrow", hours=-24), *daily(3)]
    assert deleted(found, Policy(keep_last=1)) == {"d1", "d2"}
    assert "dated in the future" in reason(found, Policy(keep_last=1), "tomorrow")
    assert reason(found, Policy(keep_last=1), "d0") == "the newest verified backup, last 1 of 1"


def test_it_refuses_when_the_newest_run_failed():
    found = [backup("bad", state="failed", has_files=False, verified_at=frozenset()), *daily(3)[1:]]
    with pytest.raises(RefusedError, match=r"newest backup \(bad\) failed"):
        plan(found, Policy(keep_last=1), now=NOW)


def test_a_wrong_clock_does_not_hide_a_failure():
    found = [backup("bad", state="failed", hours=1, verified_at=frozenset()), backup("future", hours=-9), *daily(3)[1:]]
    with pytest.raises(RefusedError, match=r"newest backup \(bad\) failed"):
        plan(found, Policy(keep_last=1), now=NOW)


def test_a_cancelled_run_says_nothing():
    found = [backup("stopped", state="cancelled", has_files=False, verified_at=frozenset()), *daily(3)[1:]]
    assert deleted(found, Policy(keep_last=1)) == {"d2"}


@pytest.mark.parametrize("policy", [Policy(keep_last=0), Policy(keep_last=0, keep_daily=0, keep_within_days=0)])
def test_it_refuses_a_policy_that_keeps_nothing(policy: Policy):
    with pytest.raises(RefusedError, match="keep nothing"):
        plan(daily(3), policy, now=NOW)


def test_it_refuses_when_the_policy_would_keep_none_of_these():
    with pytest.raises(RefusedError, match="none of the 2 verified"):
        plan([backup("a", hours=100), backup("b", hours=200)], Policy(keep_within_days=1), now=NOW)


def test_it_is_decided_for_one_database_at_a_time():
    with pytest.raises(ValueError, match="one database"):
        plan([backup("a"), replace(backup("b"), identity="other")], Policy(keep_last=1), now=NOW)


def test_the_rules_are_the_fields_of_a_database():
    assert RULES == Database.KEEP_FIELDS


# Any history, any policy


def any_history(rng: random.Random) -> list[Candidate]:
    """Backups as years of trouble could leave them."""
    span = rng.choice([0.5, 30, 24 * 40, 24 * 900])
    found = []
    for number in range(rng.choice([0, 1, 2, 3, 5, 8, 13, 30])):
        at = NOW - timedelta(hours=rng.uniform(-0.05, 1) * span)
        state = rng.choices(["verified", "failed", "cancelled", "running"], [8, 2, 1, 0.3])[0]
        places = [name for name in ("local", "far", "tape") if rng.random() < 0.6]
        found.append(
            Candidate(
                id=f"b{number}",
                identity="5e6f",
                state=state,
                created_at=at + timedelta(seconds=rng.choice([0, -30, 3600])),
                at=at,
                has_files=state == "verified" or rng.random() < 0.5,
                is_held=rng.random() < 0.1,
                is_safety=rng.random() < 0.15,
                is_needed=rng.random() < 0.1,
                verified_at=frozenset(places) if state == "verified" else frozenset(),
                # One of those made before it: what it shares its archive with, or builds on.
                refers_to=frozenset({rng.choice(found).id} if found and rng.random() < 0.4 else ()),
            )
        )
    rng.shuffle(found)
    return found


def any_policy(rng: random.Random) -> Policy:
    rules = {rule: rng.choice([0, 1, 2, 5, 40]) for rule in RULES if rng.random() < 0.35}
    return Policy(**rules, safety_days=rng.choice([0, 1, 30]), failed_days=rng.choice([0, 1, 30]))


def require_invariants(backups: list[Candidate], policy: Policy, decisions: list[Decision]) -> None:
    """What must hold of every plan, whatever the history and the policy."""
    assert sorted(each.id for each in decisions) == sorted(each.id for each in backups), "each is decided once"
    assert all(each.reason for each in decisions)
    kept = {each.id for each in decisions if each.is_kept}
    gone = [each for each in backups if each.id not in kept]
    if not policy.is_set:
        assert not gone
    proven = [each for each in backups if each.is_proven]
    if not proven:
        assert not gone
        return
    newest = max((each.at for each in proven if each.at <= NOW), default=None)
    needed = {name for each in backups if each.id in kept and each.has_files for name in each.refers_to}
    assert needed <= kept, "what kept backups share or build on is kept"
    for each in gone:
        assert each.state != "running"
        assert each.has_files
        assert not each.is_held
        assert not each.is_needed
        assert each.at <= NOW
        assert each.state != "verified" or each.is_proven
        assert each.at != newest or any(other.at == newest and other.id in kept for other in proven)
        if each.is_safety and each.state == "verified":
            assert NOW - each.at > timedelta(days=policy.safety_days)
        if each.state != "verified":
            assert NOW - each.created_at > timedelta(days=policy.failed_days)
    for place in {name for each in proven for name in each.verified_at}:
        assert any(each.id in kept and place in each.verified_at for each in proven), place
    assert any(each.id in kept for each in proven), "a proven backup is left"
    if newest is not None:
        assert any(each.id in kept and each.at == newest for each in proven), "the newest proven one is left"


def refusal_is_right(backups: list[Candidate], policy: Policy) -> bool:
    ended = [each for each in backups if each.state in ("verified", "failed")]
    for runs in (ended, [each for each in ended if each.at <= NOW]):
        if runs and max(runs, key=lambda each: (each.at, each.created_at, each.id)).state == "failed":
            return True
    span = [policy.keep_within_days] if policy.keep_within_days else []
    others = [rule for rule in RULES if rule != "keep_within_days" and getattr(policy, rule)]
    return policy.is_set and not others and (not span or span[0] < 900)


@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(min_value=0, max_value=2**64 - 1))
def test_ten_thousand_histories_and_policies_keep_what_must_be_kept(seed: int):
    rng = random.Random(seed)
    backups, policy = any_history(rng), any_policy(rng)
    try:
        decisions = plan(backups, policy, now=NOW)
    except RefusedError:
        assert refusal_is_right(backups, policy)
        return
    require_invariants(backups, policy, decisions)
    left = [each for each in backups if each.id in {found.id for found in decisions if found.is_kept}]
    assert all(each.is_kept for each in plan(left, policy, now=NOW)), "a second run deletes nothing"


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(min_value=0, max_value=2**64 - 1), change=st.sampled_from(["is_held", "is_needed"]))
def test_a_protection_deletes_nothing_that_would_stay_and_saves_what_it_names(seed: int, change: str):
    rng = random.Random(seed)
    backups, policy = any_history(rng), any_policy(rng)
    before = kept_of(lambda: plan(backups, policy, now=NOW))
    if before is None or not backups:
        return
    chosen = rng.choice(backups).id
    changed = [replace(each, **{change: True}) if each.id == chosen else each for each in backups]
    after = kept_of(lambda: plan(changed, policy, now=NOW))
    if after is not None:
        assert after >= before | {chosen}


def kept_of(run: Callable[[], list[Decision]]) -> set[str] | None:
    try:
        return {each.id for each in run() if each.is_kept}
    except RefusedError:
        return None
