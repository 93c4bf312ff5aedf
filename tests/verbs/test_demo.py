"""``demo``: the real command, in processes and homes of its own."""

from __future__ import annotations

import argparse
import http.cookiejar
import os
import re
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backups_app.demo import shop
from backups_app.verbs import demo
from tests.admin.markup import Page
from tests.console import Console, Finished, environment, wait_until
from tests.demo.processes import processes_naming
from tests.jobs.processes import environment_of, living
from tests.support import PROJECT, bytes_in, names_in, rows_of, run_python

ROWS = shop.CUSTOMERS + shop.PRODUCTS + shop.ORDERS
PRECIOUS = {
    "site.sqlite3": b"not even a database",
    "catalog.sqlite3": b"mine too",
    "archives/default/2026/a.zst": b"an archive",
    "site.sqlite3-wal": b"its rows",
}


def fill(home: Path) -> None:
    """Put things into a home that no demo may touch."""
    for name, content in PRECIOUS.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)


def outside(home: Path) -> dict[str, bytes]:
    """Everything in a home but the demo's folder."""
    return {name: content for name, content in bytes_in(home).items() if not name.startswith("demo/")}


def table_of(finished: Finished) -> dict[str, list[str]]:
    """The printed table: title of a line → its cells."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in finished.stdout.splitlines() if line.startswith("  ")]
    return {cells[0]: cells[1:] for cells in lines if cells}


def assert_no_process(home: Path) -> None:
    """Neither the writer, which names the home, nor web server and worker, which have it in their environment."""
    wait_until(lambda: not processes_naming(home) and not living("BACKUPS_HOME", home / "demo"), timeout_seconds=10)


# The report


@dataclass
class Reported:
    """Two runs one after the other in a home that holds other things."""

    console: Console
    first: Finished
    second: Finished


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    home = tmp_path_factory.mktemp("demo") / "home"
    fill(home)
    console = Console(home)
    return Reported(console, console.run("demo", "--no-serve"), console.run("demo", "--no-serve", "--json"))


def test_the_report_shows_what_each_copy_holds(reported: Reported):
    assert reported.first.code == 0, reported.first.stderr
    table = table_of(reported.first)
    assert table["live site"] == [f"{ROWS:,}", "–", "1", "ok", "the truth"]
    assert table["naive file copy"] == ["0", f"{ROWS:,}", "0", "ok", "holds the schema only"]
    assert table["our backup"] == [f"{ROWS:,}", "0", "1", "ok", "verified"]
    assert "Error" not in reported.first.stderr


def test_a_second_run_in_the_same_home_reports_the_same_as_json(reported: Reported):
    assert reported.second.code == 0, reported.second.stderr
    report = reported.second.document["demo"]
    assert set(report) == {"live", "naive", "ours", "backup"}
    assert report["naive"]["rows"] < report["live"]["rows"] == report["ours"]["rows"] == ROWS
    assert report["naive"]["rows"] == 0
    assert [report[each]["integrity"] for each in ("live", "naive", "ours")] == ["ok", "ok", "ok"]
    assert [report[each]["administrators"] for each in ("live", "naive", "ours")] == [1, 0, 1]
    assert (report["backup"]["state"], report["backup"]["verdict"]) == ("verified", "passed")
    tables = report["backup"]["tables"]
    assert {name: rows for name, rows in tables.items() if name.startswith("shop_")} == {
        "shop_customer": shop.CUSTOMERS,
        "shop_product": shop.PRODUCTS,
        "shop_order": shop.ORDERS,
    }
    assert "errors" not in reported.second.document


def test_nothing_outside_its_own_folder_is_touched(reported: Reported):
    left = outside(reported.console.home)
    assert {name: left.pop(name) for name in PRECIOUS} == PRECIOUS
    assert set(left) == {"demo.lock", "state/secret_key"}
    assert names_in(reported.console.home.parent) == {"home"}


def test_the_second_run_starts_afresh(reported: Reported):
    home = reported.console.home / "demo"
    archives = list((home / "archives").rglob("*.zst"))
    backup = reported.second.document["demo"]["backup"]
    assert [each.name for each in archives] == [Path(backup["copies"][0]["name"]).name]
    assert Console(home).query("SELECT id FROM backups_app_backup") == [(backup["id"],)]


def test_no_copy_in_plain_text_and_no_scratch_is_left(reported: Reported):
    home = reported.console.home / "demo"
    assert names_in(home) == {".walsafe-demo", "archives", "catalog.sqlite3", "scratch", "site.sqlite3", "state"}
    assert names_in(home / "scratch") == set()
    assert rows_of(home / "site.sqlite3")["shop_order"] == shop.ORDERS


def test_no_writer_survives_the_report(reported: Reported):
    assert_no_process(reported.console.home)


def test_the_report_holds_no_password(reported: Reported):
    for finished in (reported.first, reported.second):
        assert "assword" not in finished.stdout + finished.stderr


# Refusals


@pytest.mark.parametrize("name", ["site.sqlite3", ".hidden", "state/file"])
def test_a_foreign_folder_is_refused_and_untouched(tmp_path: Path, name: str):
    home = tmp_path / "home"
    (home / "demo" / name).parent.mkdir(parents=True)
    (home / "demo" / name).write_bytes(b"precious")
    finished = Console(home).run("demo", "--no-serve", "--json")
    assert finished.code == 7
    assert finished.document["errors"][0]["code"] == "refused"
    assert str(home / "demo") in finished.stderr
    assert bytes_in(home / "demo") == {name: b"precious"}
    assert not (home / "demo.lock").exists()


def test_a_file_in_the_place_of_the_folder_is_refused_and_untouched(tmp_path: Path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "demo").write_bytes(b"precious")
    finished = Console(tmp_path / "home").run("demo", "--no-serve")
    assert finished.code in (1, 7)
    assert "Error: " in finished.stderr
    assert (tmp_path / "home" / "demo").read_bytes() == b"precious"


@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999999999", "http", "80.5", "²", ""])
def test_a_port_that_is_none_is_a_usage_error(capsys: pytest.CaptureFixture[str], port: str):
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    with pytest.raises(SystemExit) as exited:
        parser.parse_args([f"--port={port}"])
    assert exited.value.code == 2
    assert "give a number from 1 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["1", "8000", "65535"])
def test_any_other_port_is_accepted(port: str):
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    assert parser.parse_args(["--port", port]).port == int(port)


def test_a_usage_error_comes_before_anything_is_written(tmp_path: Path):
    assert Console(tmp_path / "home").run("demo", "--port", "-1").code == 2
    assert not (tmp_path / "home" / "demo").exists()


def test_when_no_port_is_free_nothing_is_begun(tmp_path: Path):
    with closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # another process has it: just as well
            taken.bind(("127.0.0.1", 65535))
            taken.listen()
        finished = Console(tmp_path / "home").run("demo", "--port=65535", "--json")
    assert finished.code == 4
    assert finished.document["errors"][0]["message"] == "No port from 65535 on is free."
    assert not (tmp_path / "home" / "demo" / "site.sqlite3").exists()


def test_settings_that_do_not_follow_the_home_are_refused(tmp_path: Path):
    program = """
import os, sys
from pathlib import Path
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
from project import settings
settings.DATABASES["default"]["NAME"] = Path(sys.argv[1]) / "elsewhere.sqlite3"
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "backup", "demo", "--no-serve"])
"""
    home = tmp_path / "home"
    finished = run_python(program, tmp_path, check=False, env=environment(home))
    assert finished.returncode == 7, finished.stderr
    assert "outside its own folder" in finished.stderr
    assert not (tmp_path / "elsewhere.sqlite3").exists()
    assert not (home / "demo").exists()


# Serving


class Browser:
    """A person with a browser, over real HTTP."""

    def __init__(self, base: str) -> None:
        self.base = base
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(jar, urllib.request.ProxyHandler({}))

    def open(self, address: str, data: dict[str, str] | None = None) -> tuple[str, int, Page]:
        """Open a page, or send a form: where it ended, the status, the page."""
        body = urllib.parse.urlencode(data).encode() if data is not None else None
        try:
            with closing(self._opener.open(f"{self.base}{address}", body, timeout=30)) as response:
                return response.url.removeprefix(self.base), response.status, Page(response.read().decode())
        except urllib.error.HTTPError as exc:
            with exc:
                return address, exc.code, Page(exc.read().decode())

    def send_form(self, address: str, **data: str) -> tuple[str, int, Page]:
        """Open a form and send it with its token."""
        _, _, page = self.open(address)
        inputs = [each.attributes for each in page.all("input") if each.attributes.get("type") == "hidden"]
        return self.open(address, {**{each["name"]: each["value"] for each in inputs}, **data})


@dataclass
class Served:
    """A demo that serves, with what it has said so far."""

    console: Console
    process: subprocess.Popen[bytes]
    lines: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    @property
    def base(self) -> str:
        found = re.search(r"http://127\.0\.0\.1:\d+", self.said)
        assert found is not None
        return found[0]

    @property
    def password(self) -> str:
        found = re.search(r"User: demo   Password: (\S+)", self.said)
        assert found is not None
        return found[1]


@contextmanager
def serving(home: Path, *arguments: str, ready: str = "Stop with Ctrl-C") -> Iterator[Served]:
    """A demo in a session of its own, once it has said that it is ready; it is dead when the block ends."""
    console = Console(home)
    process = subprocess.Popen(
        console.command("demo", *arguments),
        env=environment(home),
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    served = Served(console, process)

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            served.lines.append(line.decode())

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        wait_until(lambda: ready in served.said or process.poll() is not None, timeout_seconds=60)
        assert process.poll() is None, served.said
        yield served
    finally:
        process.kill()
        process.wait()
        listener.join()
        assert process.stdout is not None
        process.stdout.close()


def some_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A demo that found its wanted port taken."""
    home = tmp_path_factory.mktemp("served") / "home"
    fill(home)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        with serving(home, f"--port={taken.getsockname()[1]}") as found:
            wait_until(lambda: answers(found.base))
            found.lines.append(f"(taken: {taken.getsockname()[1]})")
            yield found


def answers(base: str) -> bool:
    try:
        return Browser(base).open("/admin/login/")[1] == 200
    except OSError:
        return False


def test_a_taken_port_is_said_and_the_next_one_used(served: Served):
    taken = int(re.findall(r"\(taken: (\d+)\)", served.said)[0])
    port = int(served.base.rpartition(":")[2])
    assert taken < port < taken + 100
    assert f"Port {taken} is taken; using {port}." in served.said


def test_the_login_page_is_served_and_the_root_leads_there(served: Served):
    address, status, page = Browser(served.base).open("/")
    assert (address, status) == ("/admin/login/?next=/admin/", 200)
    assert page.inline_code == []


def test_the_style_sheets_are_served(served: Served):
    browser = Browser(served.base)
    for sheet in ("/static/backups_app/admin.css", "/static/admin/css/base.css"):
        assert browser.open(sheet)[1] == 200, sheet
    assert browser.open("/static/backups_app/none.css")[1] == 404


def test_a_wrong_password_does_not_open_the_admin(served: Served):
    browser = Browser(served.base)
    browser.send_form("/admin/login/", username="demo", password="demo", next="/admin/")
    assert browser.open("/admin/")[0].startswith("/admin/login/")


def test_the_printed_password_opens_the_admin_and_back_up_now_works(served: Served):
    browser = Browser(served.base)
    address, status, page = browser.send_form(
        "/admin/login/", username="demo", password=served.password, next="/admin/backups_app/database/"
    )
    assert (address, status) == ("/admin/backups_app/database/", 200)
    assert page.badges == ["✓ safe"]
    (change,) = [link for link in page.links if re.fullmatch(r"/admin/backups_app/database/\d+/change/", link)]
    database_id = change.split("/")[4]
    back_up = f"/admin/backups_app/database/back-up-now/?id={database_id}"
    address, status, page = browser.send_form(back_up, note="over HTTP")
    assert status == 200
    assert re.fullmatch(r"/admin/backups_app/job/[0-9a-f]{12}/change/", address)
    wait_until(lambda: browser.open(address)[2].badges[0] == "✓ succeeded")
    page = browser.open(address)[2]
    (made,) = [link for link in page.links if re.fullmatch(r"/admin/backups_app/backup/[0-9a-f]{12}/change/", link)]
    page = browser.open(made)[2]
    assert "✓ verified" in page.badges
    cells = page.cells()
    assert int(cells[cells.index("shop_order") + 1].replace(",", "")) >= shop.ORDERS
    found = Console(served.console.home / "demo").query(
        "SELECT state, verdict FROM backups_app_backup WHERE note = 'over HTTP'"
    )
    assert found == [("verified", "passed")]


def test_the_shop_gets_orders_while_it_is_served(served: Served):
    def orders() -> int:
        program = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone()[0])"
        site = served.console.home / "demo" / "site.sqlite3"
        return int(run_python(program, site, "SELECT count(*) FROM shop_order").stdout)

    wait_until(lambda: orders() > shop.ORDERS)


def test_a_worker_runs_beside_it(served: Served):
    demo_home = served.console.home / "demo"
    wait_until(lambda: Console(demo_home).query("SELECT 1 FROM backups_app_host WHERE stopped_at IS NULL"))
    generations = {environment_of(each).get("BACKUPS_GENERATION") for each in living("BACKUPS_HOME", demo_home)}
    assert len(generations - {None}) == 2, "the web server's and the worker's"


def test_it_listens_on_this_machine_only(served: Served):
    port = int(served.base.rpartition(":")[2])
    with closing(socket.socket()) as other:
        other.settimeout(2)
        assert other.connect_ex(("127.0.0.2", port)) != 0


def test_a_second_demo_in_the_same_home_is_refused_and_does_no_harm(served: Served):
    home = served.console.home / "demo"
    before = Console(home).query("SELECT count(*) FROM backups_app_backup")
    writers = processes_naming(home)
    assert len(writers) == 1
    second = served.console.run("demo", "--no-serve", "--json")
    assert second.code == 4
    assert second.document["errors"][0]["code"] == "busy"
    assert processes_naming(home) == writers
    assert answers(served.base)
    assert Console(home).query("SELECT count(*) FROM backups_app_backup")[0] >= before[0]


def test_the_password_is_kept_nowhere(served: Served):
    assert served.said.count(served.password) == 1
    for name, content in bytes_in(served.console.home / "demo").items():
        if not name.startswith("site.sqlite3"):
            assert served.password.encode() not in content, name


def end_by_sigint_to_the_group(process: subprocess.Popen[bytes]) -> None:
    """What a terminal does on Ctrl-C: every process of the group gets it."""
    os.killpg(process.pid, signal.SIGINT)


def end_by_sigterm(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("end", [end_by_sigint_to_the_group, end_by_sigterm])
def test_a_signal_ends_serving_in_good_order(tmp_path: Path, end: Any):
    with serving(tmp_path / "home", f"--port={some_port()}") as served:
        wait_until(lambda: answers(served.base))
        assert len(processes_naming(tmp_path / "home")) == 1
        end(served.process)
        assert served.process.wait(timeout=15) == 0
    assert_no_process(tmp_path / "home")
    assert "Traceback" not in served.said
    assert served.said.index("our backup") < served.said.index("The admin is at")
    assert served.said.rstrip().endswith("Stopped.")
    assert not answers(served.base)


def test_killing_the_demo_leaves_no_writer_and_the_next_one_works(tmp_path: Path):
    home = tmp_path / "home"
    with serving(home, f"--port={some_port()}") as served:
        assert len(processes_naming(home)) == 1
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
        assert_no_process(home)
    next_one = Console(home).ok("demo", "--no-serve", "--json").document["demo"]
    assert next_one["naive"]["rows"] == 0
    assert next_one["ours"]["rows"] == ROWS


@pytest.mark.parametrize("end", [end_by_sigint_to_the_group, end_by_sigterm])
def test_a_signal_during_the_report_ends_it_in_words(tmp_path: Path, end: Any):
    home = tmp_path / "home"
    process = subprocess.Popen(
        Console(home).command("demo", "--no-serve"),
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_until(lambda: processes_naming(home))
        end(process)
        said = process.communicate(timeout=30)[0].decode()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "The demonstration was stopped." in said
    assert "our backup" not in said
    assert_no_process(home)


def test_a_demonstration_that_does_not_convince_fails_with_one_document(tmp_path: Path):
    program = """
import os, subprocess, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
import django
django.setup()
from django.core.management import execute_from_command_line
from backups_app.demo import stage
# The old way happens to be complete, as after the last connection has closed.
program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', sys.argv[2:])"
stage._copy_the_old_way = lambda *paths: subprocess.run([sys.executable, "-c", program, *map(str, paths)], check=True)
execute_from_command_line(["manage.py", "backup", "demo", "--json"])
"""
    home = tmp_path / "home"
    (home / "demo").mkdir(parents=True)
    (home / "demo" / ".walsafe-demo").touch()
    finished = run_python(program, check=False, env=environment(home / "demo"))
    found = Finished(finished.returncode, finished.stdout, finished.stderr)
    assert found.code == 3, found.stderr
    assert found.document["demo"]["naive"]["verdict"] == "complete, this time"
    assert found.document["errors"][0]["code"] == "verification_failed"
    assert_no_process(home)
