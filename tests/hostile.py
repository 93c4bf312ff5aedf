"""Hostile text in every text column of every row: what a name, a note or a log may hold at worst."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, models, transaction

from backups_app.models import AuditEvent, Database

SCRIPT = "\"'><script>window.pwned=1</script><img src=x onerror=window.pwned=2>{{7*7}}{% now 'Y' %}%s</title></bdi>"
TERMINAL = "\x1b[2J\x1b]0;pwned\x07\rgone\x9b31m\x08"
OVERRIDE = "\u202e"
LONG = "W" * 200

TEXTS = {
    "script": f"{SCRIPT}{OVERRIDE}txt.exe",
    "right to left": f"{OVERRIDE}{SCRIPT[:60]}\u2066\u0645\u0631\u062d\u0628\u0627 txt.exe",
    "long": f"{OVERRIDE}{LONG}{SCRIPT}",
}
"""Kind → a text; what is too long for its column is cut."""

# Not free text: what they hold is a digest, an address of another row, or names a file that tests open.
_KEPT = frozenset(
    {
        *("identity", "alias", "archive_name", "sha256", "archive_sha256", "content_sha256", "manifest_sha256"),
        *("binding_sha256", "approved_binding", "signing_key_id", "origin_sha256", "challenge_sha256"),
        *("requested_by_id", "approved_by_id", "public", "password"),
    }
)
_KEPT_OF = {("Database", "path"), ("Copy", "name"), ("User", "username"), ("Copy", "destination")}


def poison(text: str, *, spared: frozenset[str] = frozenset()) -> int:
    """Write ``text`` into every text column that is free, also where only a hand or a bug could; returns how many.

    Columns that say a state keep it, so that pages find what they look for. Names of people in
    ``spared`` stay, for those who sign in.
    """
    filled = 0
    for model in [*apps.get_app_config("backups_app").get_models(), User, Group]:
        if model._meta.proxy or model is AuditEvent:  # the trail refuses to be changed
            continue
        for row in model._default_manager.all():
            filled += sum(_fill(row, field, text, spared=spared) for field in model._meta.fields)
    cut = {name: text[:length] for name, length in (("actor_name", 200), ("database_name", 200), ("subject", 255))}
    AuditEvent.objects.create(action=text[:40], outcome="failed", detail=text, actor_id=text[:64], **cut)
    return filled


def _fill(row: Any, field: Any, text: str, *, spared: frozenset[str]) -> bool:
    name = (type(row).__name__, field.name)
    if field.primary_key or field.choices or field.name in _KEPT or name in _KEPT_OF:
        return False
    if getattr(row, "username", None) in spared:
        return False
    if isinstance(field, models.JSONField):
        value = _poisoned(getattr(row, field.name), text)
    elif isinstance(field, models.CharField | models.TextField):
        # Unique columns get a number in front; two rows of one name would be refused.
        value = f"{row.pk} {text}" if field.unique or isinstance(row, Database) else text
        value = value[: field.max_length]
    else:
        return False
    with suppress(IntegrityError), transaction.atomic(using=row._state.db):  # a constraint keeps it out
        type(row)._default_manager.filter(pk=row.pk).update(**{field.name: value})
        return True
    return False


def _poisoned(found: Any, text: str, *, of: str = "") -> Any:
    """The document with every text in it replaced; numbers and names of fields stay, names of tables do not."""
    if isinstance(found, dict):
        return {
            f"{number} {text}" if of == "tables" else name: _poisoned(value, text, of=name)
            for number, (name, value) in enumerate(found.items())
        }
    if isinstance(found, list):
        return [_poisoned(each, text) for each in found]
    return text if isinstance(found, str) else found
