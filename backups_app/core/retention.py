"""Which backups a policy keeps, and why: a pure function, so that it can be asked without any risk.

Slots (the last N, one per hour, day, week, month or year, all within a span) are filled by proven
backups only, newest first; hours and days are those of UTC. Around the slots stand protections that no
policy can switch off: see :func:`plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .errors import RefusedError

RULES = (
    "keep_last",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
    "keep_within_days",
)
"""The rules of a policy by their names."""

_PERIODS: tuple[tuple[str, str, Callable[[datetime], str]], ...] = (
    ("keep_hourly", "hourly", lambda at: f"{at:%Y-%m-%d %H}:00"),
    ("keep_daily", "daily", lambda at: f"{at:%Y-%m-%d}"),
    ("keep_weekly", "weekly", lambda at: f"{at:%G-W%V}"),
    ("keep_monthly", "monthly", lambda at: f"{at:%Y-%m}"),
    ("keep_yearly", "yearly", lambda at: f"{at:%Y}"),
)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What to keep. A rule that is None says nothing; 0 keeps nothing by that rule."""

    keep_last: int | None = None
    keep_hourly: int | None = None
    keep_daily: int | None = None
    keep_weekly: int | None = None
    keep_monthly: int | None = None
    keep_yearly: int | None = None
    keep_within_days: int | None = None
    safety_days: float = 30
    """How long backups made before a restore are kept."""
    failed_days: float = 30
    """How long the files of failed backups are kept."""

    @property
    def is_set(self) -> bool:
        """Whether there is any rule. Without one nothing is ever deleted."""
        return any(getattr(self, rule) is not None for rule in RULES)

    @property
    def keeps_nothing(self) -> bool:
        """Whether all its rules together keep nothing at all."""
        return self.is_set and not any(getattr(self, rule) for rule in RULES)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What retention has to know of a backup."""

    id: str
    identity: str
    """Identity of its database; names do not matter here."""
    state: str
    """``running``, ``verified``, ``failed`` or ``cancelled``."""
    created_at: datetime
    at: datetime
    """The instant of its data; that of the attempt when there is none."""
    failed_at: datetime | None = None
    """Since when no copy of it is good; None when nobody has looked."""
    has_files: bool = True
    is_held: bool = False
    is_safety: bool = False
    """It was made before a restore."""
    is_needed: bool = False
    """An open restore, or an undo that may run at once, needs it."""
    verified_at: frozenset[str] = frozenset()
    """The destinations at which it has a verified copy."""
    refers_to: frozenset[str] = frozenset()
    """Backups whose archives it shares, or builds on."""

    @property
    def is_proven(self) -> bool:
        """Whether it can be relied on: verified, with a copy whose last verdict was good."""
        return self.state == "verified" and bool(self.verified_at)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is to become of one backup, and why."""

    id: str
    is_kept: bool
    reason: str


def plan(backups: Iterable[Candidate], policy: Policy, *, now: datetime) -> list[Decision]:
    """One decision for each backup of one database, newest data first.

    Never deleted, whatever the policy says: what runs, has no files, is held, or is needed by an
    open restore; what a backup that is kept shares its archive with, or builds on; the newest proven
    backup, and the newest with a verified copy at each destination; safety backups and failed evidence
    within their time; what is dated in the future; what is verified but could not be judged lately;
    and everything while nothing is proven.

    Held, safety and future backups fill no slot, so that releasing them changes nothing else.

    Raises:
        RefusedError: the newest run failed, or the policy would keep none of the proven backups.
        ValueError: the backups are of several databases (a programming error).
    """
    found = sorted(backups, key=lambda each: (each.at, each.created_at, each.id), reverse=True)
    if len({each.identity for each in found}) > 1:
        raise ValueError("retention is decided for one database at a time")
    if not policy.is_set:
        return [Decision(id=each.id, is_kept=True, reason="no policy is set, so everything is kept") for each in found]
    _refuse_failed_newest(found, now=now)
    _refuse_empty(policy)
    if not any(each.is_proven for each in found):
        reason = "nothing is verified, so everything is kept"
        return [Decision(id=each.id, is_kept=True, reason=reason) for each in found]
    slots = _slots(found, policy, now=now)
    newest = _newest(found, now=now)
    return _keep_referred(found, [_decide(each, policy, slots=slots, newest=newest, now=now) for each in found])


def _keep_referred(found: list[Candidate], decisions: list[Decision]) -> list[Decision]:
    """Keep also what is needed for restoring what is kept, and whatever that needs in turn."""
    candidates, decided = {each.id: each for each in found}, {each.id: each for each in decisions}
    waiting = [each.id for each in decisions if each.is_kept and candidates[each.id].has_files]
    while waiting:
        user = waiting.pop()
        for name in candidates[user].refers_to:
            decision = decided.get(name)
            if decision is not None and not decision.is_kept:
                decided[name] = Decision(id=name, is_kept=True, reason=f"backup {user}, which is kept, needs it")
                waiting.append(name)
    return [decided[each.id] for each in decisions]


def _refuse_failed_newest(found: list[Candidate], *, now: datetime) -> None:
    ended = [each for each in found if each.state in ("verified", "failed")]
    # One that a wrong clock dated in the future must not hide the failures that follow.
    for newest in (*ended[:1], *[each for each in ended if each.at <= now][:1]):
        if newest.state != "failed":
            continue
        raise RefusedError(
            f"The newest backup ({newest.id}) failed; nothing is pruned while the older ones may be needed.",
            "Make a backup that is verified, then prune.",
        )


def _refuse_empty(policy: Policy) -> None:
    if policy.keeps_nothing:
        raise RefusedError("The policy would keep nothing.", "Give at least one rule a number above 0.")


def _slots(found: list[Candidate], policy: Policy, *, now: datetime) -> dict[str, list[str]]:
    """Id → the slots that a backup fills.

    Raises:
        RefusedError: there are backups for the slots, and none fills one.
    """
    fillers = [each for each in found if each.is_proven and not each.is_held and not each.is_safety and each.at <= now]
    slots: dict[str, list[str]] = {}

    def fill(backup: Candidate, slot: str) -> None:
        slots.setdefault(backup.id, []).append(slot)

    for number, each in enumerate(fillers[: policy.keep_last or 0], start=1):
        fill(each, f"last {number} of {policy.keep_last}")
    for rule, word, period_of in _PERIODS:
        newest_of: dict[str, Candidate] = {}
        for each in fillers:
            newest_of.setdefault(period_of(each.at.astimezone(UTC)), each)
        for period, each in list(newest_of.items())[: getattr(policy, rule) or 0]:
            fill(each, f"{word} {period}")
    for each in fillers:
        if policy.keep_within_days and now - each.at <= timedelta(days=policy.keep_within_days):
            fill(each, f"within {policy.keep_within_days} days")
    if fillers and not slots:
        raise RefusedError(
            f"The policy would keep none of the {len(fillers)} verified backups.",
            "Give it a rule that keeps some, such as keep_last; or make a new backup first.",
        )
    return slots


def _newest(found: list[Candidate], *, now: datetime) -> dict[str, str]:
    """Id → why it is the newest of its sort: of all, or with a copy at a destination.

    One that is dated in the future stands for nobody: it is kept, and the newest real one too.
    """
    proven = [each for each in found if each.is_proven and each.at <= now]
    newest: dict[str, str] = {}
    for destination in sorted({name for each in proven for name in each.verified_at}):
        first = next(each for each in proven if destination in each.verified_at)
        newest.setdefault(first.id, f"the newest verified copy at {destination}")
    if proven:
        newest[proven[0].id] = "the newest verified backup"
    return newest


def _decide(
    backup: Candidate, policy: Policy, *, slots: dict[str, list[str]], newest: dict[str, str], now: datetime
) -> Decision:
    protection = _protection(backup, now=now)
    if protection or backup.id in newest or backup.id in slots:
        reasons = [protection, newest.get(backup.id, ""), *slots.get(backup.id, [])]
        return Decision(id=backup.id, is_kept=True, reason=", ".join(each for each in reasons if each))
    if backup.is_safety and backup.state == "verified":
        return _by_age(backup, "safety backup", days=policy.safety_days, since=backup.at, now=now)
    if backup.state != "verified":
        since = backup.failed_at or backup.created_at
        return _by_age(backup, "files of a failed backup", days=policy.failed_days, since=since, now=now)
    return Decision(id=backup.id, is_kept=False, reason="no rule keeps it")


def _protection(backup: Candidate, *, now: datetime) -> str:
    if backup.state == "running":
        return "it is being made"
    if not backup.has_files:
        return "it has no files; the record stays"
    if backup.is_held:
        return "held"
    if backup.is_needed:
        return "a restore needs it"
    if backup.at > now:
        return "dated in the future: was the clock wrong?"
    if backup.state == "verified" and not backup.is_proven:
        return "its copies could not be judged lately"
    return ""


def _by_age(backup: Candidate, what: str, *, days: float, since: datetime, now: datetime) -> Decision:
    is_kept = now - since <= timedelta(days=days)
    reason = f"{what}, kept for {days:g} days" if is_kept else f"{what}, older than {days:g} days"
    return Decision(id=backup.id, is_kept=is_kept, reason=reason)
