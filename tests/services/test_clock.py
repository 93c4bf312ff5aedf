"""The supervisor's clock waits for nobody."""

from __future__ import annotations

import threading
from datetime import datetime

import pytest
from django.utils import timezone

from backups_app.services import clock
from tests.console import wait_until

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, list[str]]:
    """Duties that note their names; the watch over the health hangs until the event is set."""
    go_on, done = threading.Event(), []

    def duty(name: str) -> clock.Duty:
        def do(_ticked: clock.Ticked, _now: datetime) -> None:
            done.append(name)
            if name == "Watching the health":
                go_on.wait(20)

        return do

    monkeypatch.setattr(clock, "DUTIES", tuple((name, duty(name)) for name, _ in clock.DUTIES))
    return go_on, done


def test_a_disk_that_does_not_answer_holds_up_neither_schedules_nor_news(
    hanging: tuple[threading.Event, list[str]], monkeypatch: pytest.MonkeyPatch
):
    go_on, done = hanging
    monkeypatch.setattr(clock, "_TICK_SECONDS", 0.0)
    keeper = clock.Clock()
    for _ in range(3):
        keeper.beat(timezone.now())
        wait_until(lambda: not keeper._threads["Sending notifications"].is_alive())
    assert done.count("Firing schedules") == 3
    assert done.count("Sending notifications") == 3
    assert done.count("Watching the health") == 1, "it is not started again while it hangs"
    go_on.set()
    keeper._threads["Watching the health"].join(20)
    keeper.beat(timezone.now())
    keeper._threads["Watching the health"].join(20)
    assert done.count("Watching the health") == 2


def test_the_watch_comes_before_the_news_and_after_what_it_judges():
    names = [name for name, _ in clock.DUTIES]
    assert names[-clock._PATIENT :] == ["Watching the health", "Sending notifications"]
    assert names.index("Firing schedules") < names.index("Watching the health")
