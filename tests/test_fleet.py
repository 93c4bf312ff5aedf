"""Two hosts, one catalogue on PostgreSQL, one Redis: each does the work on its own databases, and nothing else."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.console import Finished, wait_until
from tests.fleet import Fleet, Host, make_host, object_store, people_of, prove, redis_server, rename_person
from tests.jobs.processes import Heard
from tests.postgres import Postgres, postgres_server
from tests.support import build_shop

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as running:
        yield running


@pytest.fixture
def fleet(server: Postgres, tmp_path: Path, site_template: Path) -> Iterator[Fleet]:
    with redis_server(tmp_path / "redis") as redis_url, object_store(tmp_path) as (variables, key, stored):
        url = server.new_database()
        alpha, beta = (
            make_host(name, tmp_path, site_template=site_template, url=url, redis_url=redis_url, **variables)
            for name in ("alpha", "beta")
        )
        yield Fleet(server, url, redis_url, alpha, beta, key, stored)


def names_of(host: Host) -> dict[str, str]:
    """Database → host, as one host sees all of them."""
    found = host.console.ok("databases", "--json").document["databases"]
    return {each["name"]: each["host"] for each in found}


def test_two_hosts_that_start_at_once_make_one_catalogue(fleet: Fleet):
    found: list[Finished] = []
    threads = [
        threading.Thread(target=lambda host=host: found.append(host.console.run("databases", "--json")))
        for host in (fleet.alpha, fleet.beta)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [each.code for each in found] == [0, 0], [each.stderr for each in found]
    names = names_of(fleet.alpha)
    assert sorted(names.values()) == ["alpha", "beta"]
    assert set(names) in ({"default", "default@alpha"}, {"default", "default@beta"})
    assert not fleet.alpha.console.catalog.exists()


@pytest.mark.timeout(900)  # two machines, one after the other, with everything that a fleet has
def test_a_fleet_backs_up_verifies_restores_and_undoes_and_tells_of_a_host_that_died(fleet: Fleet, tmp_path: Path):
    alpha, beta = fleet.alpha, fleet.beta
    with ExitStack() as stack:
        stack.enter_context(alpha.serving())
        heard = stack.enter_context(beta.serving())
        build_shop(tmp_path / "shop.sqlite3")
        beta.console.ok("add-database", "shop", tmp_path / "shop.sqlite3")
        assert names_of(alpha) == names_of(beta) == {"default": "alpha", "default@beta": "beta", "shop": "beta"}

        prove(alpha, fleet.key)
        refuse_work_of_another_host(fleet)
        backups = back_up_and_verify(fleet)
        restore_and_undo(fleet, backups["default@beta"])
        assert not fleet.rows("SELECT * FROM backups_app_job WHERE state NOT IN ('succeeded')")

        lose_and_recover(fleet, heard, stack)


def refuse_work_of_another_host(fleet: Fleet) -> None:
    """In the process of a command there is only this host's work."""
    for name in ("default@beta", "shop"):
        refused = fleet.alpha.console.run("create", name)
        assert refused.code == 7
        assert "'beta'" in refused.stderr
        assert "--enqueue" in refused.stderr
    assert fleet.rows("SELECT count(*) FROM backups_app_backup") == [(0,)]
    assert fleet.rows("SELECT count(*) FROM backups_app_job") == [(0,)]


def back_up_and_verify(fleet: Fleet) -> dict[str, str]:
    """One host asks for the backups of all, kept in the bucket; database → id."""
    alpha, beta = fleet.alpha, fleet.beta
    done = {"default": ("succeeded", "alpha"), "default@beta": ("succeeded", "beta"), "shop": ("succeeded", "beta")}
    assert fleet.wait_for_jobs(*alpha.enqueue("create", "--all")) == done
    assert fleet.wait_for_jobs(*beta.enqueue("verify", "--all")) == done
    verdicts = fleet.rows("SELECT level, verdict, count(*) FROM backups_app_verification GROUP BY 1, 2 ORDER BY 1")
    assert verdicts == [("creation", "passed", 3), ("full", "passed", 3)]
    listed = alpha.console.ok("list", "--json").document["backups"]
    assert {(each["state"], each["encrypted"]) for each in listed} == {("verified", True)}
    archives = [each["copies"][0]["name"] for each in listed]
    assert {f"fleet/{name}" for name in archives} <= set(fleet.stored())
    assert len(fleet.stored()) == 9  # archive, manifest and signature of each
    assert alpha.console.archived() == beta.console.archived() == set()
    # Any host that reaches the bucket gets the data of any other out of it.
    (far,) = [each["id"] for each in listed if each["database"] == "default@beta"]
    alpha.console.ok("restore", far, "--to", alpha.console.home.parent / "rescued.sqlite3")
    assert people_of(alpha.console.home.parent / "rescued.sqlite3") == people_of(beta.site)
    return {each["database"]: each["id"] for each in listed}


def restore_and_undo(fleet: Fleet, backup: str) -> None:
    """Asked for where the database is, approved from the other host, done where the database is."""
    alpha, beta = fleet.alpha, fleet.beta
    was_alpha, was = people_of(alpha.site), people_of(beta.site)
    rename_person(beta.site, "gone", "somebody else")
    reason = ("--reason", "an account was renamed", "--user", "anna")
    refused = alpha.console.run("restore", backup, *reason)
    assert refused.code == 7
    assert "'beta'" in refused.stderr
    filed = beta.console.ok("restore", backup, *reason, "--json").document["restore"]

    refused = alpha.console.run("approve", filed["id"], "--user", "ben", "--yes")
    assert refused.code == 7
    assert fleet.rows("SELECT state FROM backups_app_restore") == [("requested",)]
    assert "somebody else" in people_of(beta.site)

    done = {"default@beta": ("succeeded", "beta")}
    assert fleet.wait_for_jobs(*alpha.enqueue("approve", filed["id"], "--user", "ben", "--yes")) == done
    assert people_of(beta.site) == was
    assert fleet.wait_for_jobs(*alpha.enqueue("undo", filed["id"], "--user", "ben", "--yes")) == done
    assert "somebody else" in people_of(beta.site)
    assert people_of(alpha.site) == was_alpha


def silent(host: Host) -> list[str]:
    """What one host's ``status`` says of hosts that do not answer."""
    status = host.console.run("status", "--json")
    found = status.document["health"]["problems"]
    assert (status.code == 8) is bool(found)
    return [each["message"] for each in found if each["code"] == "host_silent"]


def lose_and_recover(fleet: Fleet, heard: Heard, stack: ExitStack) -> None:
    """A host is killed: that is an alarm, its work waits and is done when it is back."""
    alpha, beta = fleet.alpha, fleet.beta
    assert silent(alpha) == []
    os.kill(heard.process.pid, signal.SIGKILL)
    heard.process.wait()
    asked = alpha.enqueue("create", "shop")
    told = "SELECT subject FROM backups_app_healthproblem WHERE code = 'host_silent' AND told_at IS NOT NULL"
    wait_until(lambda: fleet.rows(told) == [("beta",)], timeout_seconds=120)
    (message,) = silent(alpha)
    assert "beta" in message
    # Whoever looks and settles on the living host touches nothing of the other's.
    assert fleet.jobs(*asked) == {"shop": ("queued", "beta")}

    stack.enter_context(beta.serving())
    assert fleet.wait_for_jobs(*asked) == {"shop": ("succeeded", "beta")}
    assert silent(alpha) == []


def test_two_machines_of_one_name_do_not_work_at_once(fleet: Fleet, tmp_path: Path, site_template: Path):
    (tmp_path / "clones").mkdir()
    clone = make_host(
        "alpha", tmp_path / "clones", site_template=site_template, url=fleet.url, redis_url=fleet.redis_url
    )
    with fleet.alpha.serving():
        refused = clone.console.run("serve", "--no-web")
        assert refused.code == 7
        assert "BACKUPS_HOST" in refused.stderr
    assert fleet.rows("SELECT count(*) FROM backups_app_host") == [(1,)]


def test_a_catalogue_that_does_not_answer_is_told_without_the_password(fleet: Fleet):
    fleet.alpha.console.extra["BACKUPS_CATALOG_URL"] = "postgresql://walsafe:secret-word@127.0.0.1:1/none"
    refused = fleet.alpha.console.run("list")
    assert refused.code == 1
    assert "catalogue" in refused.stderr
    assert "secret-word" not in refused.stdout + refused.stderr
    fleet.alpha.console.extra["BACKUPS_CATALOG_URL"] = "postgresql://walsafe:secret-word@[::1/none"
    refused = fleet.alpha.console.run("list")
    assert refused.code != 0
    assert "BACKUPS_CATALOG_URL cannot be used" in refused.stderr
    assert "secret-word" not in refused.stdout + refused.stderr
