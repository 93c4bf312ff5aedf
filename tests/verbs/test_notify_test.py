"""``notify-test`` on the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_django.fixtures import Settings

from tests.console import Console, Finished
from tests.receivers import hook

Run = Callable[..., Finished]

TOKEN = "t0ken-9f8e7d"


@pytest.fixture(autouse=True)
def nobody_else(settings: Settings) -> None:
    """No mail."""
    settings.ADMINS = []


def test_everybody_got_it(run: Run, settings: Settings):
    with hook() as server:
        settings.BACKUPS = {**settings.BACKUPS, "WEBHOOK_URLS": [server.url(f"/{TOKEN}")]}
        finished = run("notify-test", "--json")
        assert finished.code == 0
        assert finished.document == {
            "notifications": [
                {"channel": "webhook", "receiver": "webhook 1 (127.0.0.1)", "delivered": True, "reason": None}
            ]
        }
        assert run("notify-test").stdout == "webhook 1 (127.0.0.1): delivered\n"


def test_somebody_did_not_get_it(run: Run, settings: Settings):
    with hook() as good, hook(404) as bad:
        settings.BACKUPS = {**settings.BACKUPS, "WEBHOOK_URLS": [good.url(), bad.url(f"/{TOKEN}")]}
        finished = run("notify-test", "--json")
    assert finished.code == 1
    assert [each["delivered"] for each in finished.document["notifications"]] == [True, False]
    assert "webhook 2 (127.0.0.1): not delivered. 127.0.0.1 answered 404." in finished.stderr
    assert TOKEN not in finished.stdout + finished.stderr


def test_nobody_is_named(run: Run):
    finished = run("notify-test", "--json")
    assert finished.code == 6
    assert finished.document["errors"][0]["code"] == "not_found"
    assert "BACKUPS['WEBHOOK_URLS']" in finished.stderr


def test_the_real_command_takes_addresses_from_a_file(console: Console):
    with hook() as server:
        (console.home / "urls").write_text(server.url(f"/{TOKEN}"))
        named = Console(console.home, {"BACKUPS_WEBHOOK_URLS_FILE": str(console.home / "urls")})
        assert named.ok("notify-test").stdout == "webhook 1 (127.0.0.1): delivered\n"
        (console.home / "urls").write_text(f"ftp://x.example/{TOKEN}")
        finished = named.run("notify-test")
    assert finished.code == 1
    assert "backups.E020" in finished.stderr
    assert TOKEN not in finished.stderr
