"""The worker process: django-q2's ``qcluster``, none of whose processes outlives the one above it.

``python -m backups_app.jobs.worker``, started by the supervisor, which binds it to itself. Here
every process that django-q2 forks (sentinel, workers, pusher, monitor) is bound to its own parent,
so that a SIGKILL of any of them takes everything below it along, and one of the supervisor takes all.

SIGTERM to this process, and to no other of its group, ends it when its running tasks have ended,
however long they take: the supervisor sets the limit. ``BACKUPS_GENERATION`` in the environment
names this life of the worker; all its processes inherit it.
"""

from __future__ import annotations

from .bound import bind_forks


def main() -> None:
    """Run the cluster until it is told to end."""
    bind_forks()
    import django
    from django.core.management import call_command

    django.setup()
    from .queue import read_own_queue

    read_own_queue()
    call_command("qcluster")


if __name__ == "__main__":
    main()
