"""Judge archives of others, import the good ones (:mod:`..importing`), delete the useless ones.

``runs`` is the part behind the admin: rows, and what a worker does for them.
"""

from ...core.triage import Judged, Totals, TriageOptions
from .deleting import delete_useless
from .judging import Plan, judge_files, plan_of, watch_of
from .options import triage_options

__all__ = [
    "Judged",
    "Plan",
    "Totals",
    "TriageOptions",
    "delete_useless",
    "judge_files",
    "plan_of",
    "triage_options",
    "watch_of",
]
