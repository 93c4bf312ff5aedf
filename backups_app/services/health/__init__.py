"""Is the data safe? Answered from evidence, for people and for monitors; news of it told once."""

from .check import check_health
from .facts import DatabaseHealth, FileSystem, Health, Problem
from .limits import freshness_limit

__all__ = ["DatabaseHealth", "FileSystem", "Health", "Problem", "check_health", "freshness_limit"]
