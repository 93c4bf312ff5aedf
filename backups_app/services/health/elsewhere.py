"""What the other hosts of a fleet see, and have noted in the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from ... import conf
from ...models import HealthProblem
from ..hosts import here
from .facts import Look, Problem


def find_problems_elsewhere(_look: Look) -> Iterator[Problem]:
    """What do the other hosts see, of their files, disks and settings, that cannot be seen from here?"""
    if conf.is_catalog_local():
        return
    seen = HealthProblem.objects.filter(resolved_at=None, gone_since=None).exclude(here())
    for each in seen.order_by("host", "pk"):
        yield Problem(
            code=each.code,
            database=each.database,
            subject=each.subject,
            host=each.host,
            message=f"On {each.host}: {each.message}",
            hint=each.hint,
        )
