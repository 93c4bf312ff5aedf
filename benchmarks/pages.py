"""How long the pages of the admin take with a large catalogue: ``python -m benchmarks.pages``."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from statistics import median

_MODELS = ("backup", "database", "job", "verification", "restore", "schedule", "scheduledrun", "notification")
_PATHS = ["overview/", "overview/?p=5", *(f"{each}/" for each in _MODELS), "auditevent/"]


def main() -> None:
    """Fill a catalogue in a folder that is thrown away, then ask for each page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--databases", type=int, default=200)
    parser.add_argument("--backups", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, help="requests of each page (default: 3)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walsafe-pages-") as home:
        os.environ["BACKUPS_HOME"], os.environ["DJANGO_SETTINGS_MODULE"] = home, "project.settings"
        _measure(databases=arguments.databases, backups=arguments.backups, rounds=arguments.rounds)


def _measure(*, databases: int, backups: int, rounds: int) -> None:
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.db import connections
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from .catalogue import fill

    for alias in ("default", "catalog"):
        call_command("migrate", database=alias, verbosity=0)
    fill(databases=databases, backups=backups)
    client = Client(SERVER_NAME="localhost")
    client.force_login(User.objects.create_superuser("bench"))
    client.get("/admin/backups_app/overview/")  # imports and templates
    print(f"{databases} databases, {backups} backups; server time in ms, median of {rounds}\n")
    print("| Page | ms | queries | kB |\n| --- | ---: | ---: | ---: |")
    for path in _PATHS:
        times = []
        with (
            CaptureQueriesContext(connections["default"]) as default,
            CaptureQueriesContext(connections["catalog"]) as catalog,
        ):
            for _ in range(rounds):
                begun = time.perf_counter()
                response = client.get(f"/admin/backups_app/{path}")
                times.append(time.perf_counter() - begun)
        queries = (len(default) + len(catalog)) / rounds
        print(f"| {path} | {median(times) * 1000:.0f} | {queries:.0f} | {len(response.content) / 1000:.0f} |")
    for each in connections.all():
        each.close()


if __name__ == "__main__":
    main()
