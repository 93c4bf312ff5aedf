"""A large catalogue, written in seconds: many databases, very many backups, and what belongs to them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from django.apps import apps
from django.db import connections
from django.db.models import Field, JSONField

_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count})"
_MOMENT = "strftime('%Y-%m-%d %H:%M:%f', %s, '-' || ({age}) || ' seconds')"
_CENSUS = (
    '\'{"tables": {"auth_user": 12, "django_session": 4711, "product": 7654300, "sale": 21}, "page_size": 4096, '
    '"schema": "\' || hex(zeroblob(200)) || \'"}\''
)


def fill(*, databases: int = 200, backups: int = 100_000, days: int = 60, now: datetime | None = None) -> None:
    """Write rows straight into the catalogue, which must be SQLite and hold no database yet.

    Backups are spread evenly over ``databases`` and ``days``; one in 97 failed. Each has a copy, a
    verification, a job and an audit event.
    """
    at = (now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M:%S")
    step = days * 86_400 // (backups // databases)
    # Number i: its database, and its age in seconds.
    database, age = f"i % {databases} + 1", f"i / {databases} * {step} + 60 * (i % {databases} % 60)"
    moment = _MOMENT.replace("{age}", age).replace("%s", "?1").replace("?1", f"'{at}'")
    old = f"datetime('{at}', '-{days + 30} days')"
    has_failed, count = "i % 97 = 0", backups
    digest = "printf('%064x', i)"
    statements = [
        f"""{_NUMBERS.format(count=databases)} INSERT INTO backups_app_database
            (id, name, identity, alias, path, is_under_care, is_imported, required_tables, freshness_hours,
             added_at)
            SELECT i + 1, printf('tenant-%03d', i), printf('%032x', i), '', '/srv/tenants/' || i || '.sqlite3',
            1, 0, '[]', NULL, {old} FROM n""",
        f"""{_NUMBERS.format(count=count)} INSERT INTO backups_app_job
            (id, kind, database_id, options, trigger, requested_by_id, requested_by_name, created_at, state,
             is_inline, host, owner, token, attempts, started_at, heartbeat_at, finished_at, phase, done_bytes,
             total_bytes, cancelled_by_name, failure_code, outcome, hint, log)
            SELECT printf('%012x', i), 'create', {database}, '{{}}', 'schedule', '', 'system', {moment},
            CASE WHEN {has_failed} THEN 'failed' ELSE 'succeeded' END, 0, 'here', '', 1, 1, {moment}, {moment},
            {moment}, '', 0, 0, '', '', 'It is so.', '', hex(zeroblob(100)) FROM n""",
        f"""{_NUMBERS.format(count=count)} INSERT INTO backups_app_backup
            (id, database_id, job_id, trigger, requested_by_id, requested_by_name, note, is_held, created_at,
             taken_at, finished_at, state, verdict, verified_at, failure_code, reason, hint, archive_name,
             size_bytes, archive_bytes, sha256, archive_sha256, content_sha256, manifest_sha256, is_encrypted,
             census, row_count, remarks, pinned_seconds, held_by_name, key_ids, origin_sha256, prune_reason,
             signing_key_id, shares_with, builds_on, links_sha256)
            SELECT printf('%012x', i), {database}, printf('%012x', i), 'schedule', '', 'system', '', 0, {moment},
            {moment}, {moment}, CASE WHEN {has_failed} THEN 'failed' ELSE 'verified' END,
            CASE WHEN {has_failed} THEN '' ELSE 'passed' END, {moment}, '',
            CASE WHEN {has_failed} THEN 'The disk is full.' ELSE '' END, '', 'tenant/' || i,
            4000000 + i % 1000000, 800000 + i % 100000, {digest}, {digest}, {digest}, {digest}, 0, {_CENSUS},
            7654321, '[]', 0.5, '', '[]', '', '', '', '', '', '' FROM n""",
        f"""{_NUMBERS.format(count=count)} INSERT INTO backups_app_copy
            (backup_id, destination, name, state, reason, stored_at, checked_at)
            SELECT printf('%012x', i), 'local', 'tenant/' || i, 'verified', '', {moment}, {moment} FROM n""",
        f"""{_NUMBERS.format(count=count)} INSERT INTO backups_app_verification
            (backup_id, job_id, destination, level, verdict, reason, hint, checks, started_at, finished_at,
             requested_by_id, requested_by_name)
            SELECT printf('%012x', i), printf('%012x', i), 'local', 'creation', 'passed', '', '', {_CENSUS},
            {moment}, {moment}, '', 'system' FROM n""",
        f"""{_NUMBERS.format(count=count)} INSERT INTO backups_app_auditevent
            (at, actor_id, actor_name, action, outcome, database_name, subject, detail)
            SELECT {moment}, '', 'system', 'create', 'done', printf('tenant-%03d', i % {databases}),
            printf('%012x', i), '' FROM n""",
        f"""{_NUMBERS.format(count=databases)} INSERT INTO backups_app_schedule
            (id, database_id, kind, cron, time_zone, jitter_seconds, is_enabled, handled_until, added_at)
            SELECT i + 1, i + 1, 'create', (i % 60) || ' */3 * * *', 'Europe/Athens', 0, 1, '{at}', {old} FROM n""",
        f"""{_NUMBERS.format(count=count // 2)} INSERT INTO backups_app_scheduledrun
            (schedule_id, due_at, fired_at, is_late, missed, job_id)
            SELECT {database}, {moment}, {moment}, i % 50 = 0, 0, printf('%012x', i) FROM n""",
        f"""{_NUMBERS.format(count=count // 10)} INSERT INTO backups_app_notification
            (channel, event, job_id, receiver, content, created_at, state, attempts, next_attempt_at, sent_at, reason)
            SELECT 'mail', 'failed', printf('%012x', i), 0, '{{"subject": "It failed."}}', {moment}, 'sent', 1,
            {moment}, {moment}, '' FROM n""",
    ]
    with connections["catalog"].cursor() as cursor:
        for statement in statements:
            cursor.execute(_completed(statement))


def _completed(statement: str) -> str:
    """The statement with the defaults of those columns that it does not name and that need a value."""
    found = re.search(r"INSERT INTO (\w+)\s*\((.*?)\)\s*SELECT", statement, re.DOTALL)
    assert found is not None
    table, named = found.group(1), {each.strip() for each in found.group(2).split(",")}
    models = apps.get_app_config("backups_app").get_models()
    (model,) = [each for each in models if each._meta.db_table == table and not each._meta.proxy]
    fields = [each for each in model._meta.concrete_fields if not each.primary_key and not each.null]
    missing = {each.column: _literal(each) for each in fields if each.column not in named}
    head, tail = statement[: found.end(2)], statement[found.end(2) :]
    head += "".join(f", {column}" for column in missing)
    return head + tail.removesuffix(" FROM n") + "".join(f", {value}" for value in missing.values()) + " FROM n"


def _literal(field: Field[Any, Any]) -> str:
    default = field.get_default()
    if isinstance(field, JSONField):
        return f"'{json.dumps(default)}'"
    return f"'{default}'" if isinstance(default, str) else str(int(default))
