"""Is the data safe? Answered from evidence, for people and for monitors; news of it told once."""

from .check import check_health, judge
from .evidence import gather, open_jobs
from .facts import DatabaseHealth, FileSystem, Health, Look, Problem
from .limits import MOST_ROWS, freshness_limit

__all__ = [
    "MOST_ROWS",
    "DatabaseHealth",
    "FileSystem",
    "Health",
    "Look",
    "Problem",
    "check_health",
    "freshness_limit",
    "gather",
    "judge",
    "open_jobs",
]
