"""Work in the background: ask → claim → do → end, and what happens when an owner dies.

``run`` and ``reap`` stand above the verbs (they call them) and are imported by their names; the
verbs stand on ``inline``.
"""

from .ask import ask_create, ask_drill, ask_due, ask_job, ask_prune, ask_restore, ask_verify
from .cancel import cancel_job

__all__ = ["ask_create", "ask_drill", "ask_due", "ask_job", "ask_prune", "ask_restore", "ask_verify", "cancel_job"]
