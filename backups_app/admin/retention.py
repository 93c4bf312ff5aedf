"""Retention on the screen: the rules as form fields, and what they would keep and delete."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms
from django.utils.translation import gettext as _

from ..core.errors import BackupError
from ..models import Database
from ..services.prune import Judged, policy_of, simulate_prune
from . import display

MOST = 36_500
"""The largest number that a rule takes: a hundred years of days."""

_ROWS_SHOWN = 500


def rule_fields() -> dict[str, forms.Field]:
    """One field for each rule, with the words of the model."""
    fields: dict[str, forms.Field] = {}
    columns = {column.name: column for column in Database._meta.fields}
    for name in Database.KEEP_FIELDS:
        column = columns[name]
        fields[name] = forms.IntegerField(
            label=str(column.verbose_name).capitalize(),
            help_text=column.help_text,
            required=False,
            min_value=0,
            max_value=MOST,
        )
    return fields


class SimulationForm(forms.Form):
    """Rules to try out; an empty field stands for the setting RETENTION."""

    def __init__(self, data: Any = None, *, initial: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, initial=dict(initial or {}))
        self.fields.update(rule_fields())


def refuse_empty_policy(database: Database, rules: Mapping[str, int | None]) -> None:
    """Refuse rules that would keep nothing, in the terms of a form.

    Raises:
        ValidationError: they all are 0.
    """
    if policy_of(database, rules=rules).keeps_nothing:
        raise forms.ValidationError(_("These rules would keep nothing: pruning would refuse to run."))


def simulation(database: Database, *, now: datetime, rules: Mapping[str, int | None] | None = None) -> dict[str, Any]:
    """What a prune would do, ready for a page; a refusal in place of it when it would refuse."""
    policy = policy_of(database, rules=rules)
    try:
        judged = simulate_prune(database, now=now, rules=rules)
    except BackupError as exc:
        return {"refusal": display.refusal(exc), "is_policy_set": policy.is_set}
    deleted = [each for each in judged if not each.decision.is_kept]
    return {
        "is_policy_set": policy.is_set,
        "kept": display.count(len(judged) - len(deleted)),
        "deleted": display.count(len(deleted)),
        "has_deletions": bool(deleted),
        "freed": display.size(sum(each.backup.stored_bytes for each in deleted)),
        "rows": [_row(each) for each in judged[:_ROWS_SHOWN]],
        "left_out": max(0, len(judged) - _ROWS_SHOWN),
    }


def _row(judged: Judged) -> dict[str, Any]:
    backup, decision = judged.backup, judged.decision
    word = _("kept") if decision.is_kept else _("deleted")
    return {
        "link": display.linked("backup", backup.pk),
        "age": display.age(backup.taken_at or backup.created_at),
        "state": display.badge(backup.state, backup.get_state_display()),
        "decision": display.badge("safe" if decision.is_kept else "refused", word),
        "reason": decision.reason,
        "stored": display.size(backup.stored_bytes),
    }
