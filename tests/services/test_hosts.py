"""The row of this machine tells whether a supervisor lives here, and how its worker fares."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import pytest

from backups_app.models.host import Host
from backups_app.services import hosts
from tests.support import NOW

pytestmark = pytest.mark.usefixtures("db_catalog")

LATER = NOW + timedelta(seconds=3)


def test_a_start_makes_the_row_and_counts_anew():
    hosts.report_started(now=NOW)
    hosts.report_worker_restart("It was killed.", now=NOW)
    hosts.report_stopped(now=NOW)
    hosts.report_started(now=LATER)
    host = Host.objects.get()
    assert (host.name, host.supervisor_pid) == (socket.gethostname(), os.getpid())
    assert (host.started_at, host.seen_at, host.stopped_at) == (LATER, LATER, None)
    assert (host.worker_restarts, host.worker_restarted_at, host.worker_problem) == (0, None, "")


def test_a_sign_of_life_moves_its_time_only():
    hosts.report_started(now=NOW)
    hosts.report_alive(now=LATER)
    host = Host.objects.get()
    assert (host.started_at, host.seen_at) == (NOW, LATER)


def test_a_row_that_was_lost_with_an_older_catalogue_is_made_again():
    hosts.report_alive(now=NOW)
    assert Host.objects.get().started_at == NOW


def test_restarts_of_the_worker_are_counted_with_the_last_reason():
    hosts.report_started(now=NOW)
    hosts.report_worker_restart("It ended.", now=NOW)
    hosts.report_worker_restart("It has stalled.", now=LATER)
    host = Host.objects.get()
    assert (host.worker_restarts, host.worker_restarted_at, host.worker_problem) == (2, LATER, "It has stalled.")


def test_an_end_is_not_said_of_one_that_has_taken_over():
    hosts.report_started(now=NOW)
    Host.objects.update(supervisor_pid=os.getpid() + 1)
    hosts.report_stopped(now=LATER)
    assert Host.objects.get().stopped_at is None


def test_other_hosts_are_left_alone():
    Host.objects.create(name="another", seen_at=NOW, started_at=NOW)
    hosts.report_started(now=LATER)
    hosts.report_worker_restart("It ended.", now=LATER)
    other = Host.objects.get(name="another")
    assert (other.seen_at, other.worker_restarts) == (NOW, 0)
