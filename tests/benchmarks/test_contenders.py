"""One small real run of every contender, so that none of them rots unseen."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import dbbackup, sample
from benchmarks.__main__ import _module as run_section
from benchmarks.__main__ import main
from benchmarks.contender import ROOT, Contender, ContenderError, run_tool
from benchmarks.contenders import CONTENDERS, CREATE, EXTRACT, SHELL, STORES, make_store, missing, named
from benchmarks.measure import measure, run_here
from benchmarks.rounds import run_rounds
from tests.support import names_in, needs_tool

LIMIT_SECONDS = 120

pytestmark = pytest.mark.slow


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "sample.sqlite3"
    sample.build(path, megabytes=1)
    return path


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """django-dbbackup: made where continuous integration runs, else used where a benchmark left it."""
    monkeypatch.setenv(dbbackup.ENVIRONMENT, "")  # so that it is as before afterwards
    if os.environ.get("CI"):
        dbbackup.install(tmp_path)
        return
    work = ROOT / "benchmarks" / "work"
    if not dbbackup.is_made(work):
        pytest.skip("django-dbbackup is not installed; `make bench ARGS=--keep` leaves it there")
    dbbackup.install(work)


def rows(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM purchase").fetchone()[0])


def with_tools(*tools: str) -> list[Contender]:
    """The contenders that need just one of these, or one of these and what is always there."""
    return [each for each in CONTENDERS if not each.needs_dbbackup and set(each.tools) & set(tools)]


def check_all(contenders: list[Contender], database: Path, tmp_path: Path) -> None:
    """Run each; those that leave a copy leave a whole one."""
    assert contenders
    for contender in contenders:
        for tool in contender.tools:
            needs_tool(tool)
        assert not missing(contender)
        source = database
        if contender.store is not None:
            source = tmp_path / f"store-{contender.store}"
            if not source.exists():
                source.mkdir()
                make_store(contender.store, database, source)
        found = measure(contender, source, work=tmp_path, limit_seconds=LIMIT_SECONDS)
        assert found.seconds > 0, contender.name
        if contender.kind == "latency":
            assert found.latencies, contender.name
        if contender.kind in ("backup", "restore"):
            assert found.output_bytes > 0, contender.name
        if contender.kind == "restore":
            check_restored(contender, source, database, tmp_path)
    assert not list(tmp_path.glob("run-*"))


def check_restored(contender: Contender, store: Path, database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "restored" / str(CONTENDERS.index(contender))
    folder.mkdir(parents=True)
    contender.run(store, folder)
    (copy,) = [path for path in folder.rglob("copy.sqlite3") if path.is_file()]
    assert rows(copy) == rows(database), contender.name


@pytest.mark.parametrize("kind", ["backup", "restore", "verify", "latency", "wait"])
def test_ours_and_those_of_python_alone(database: Path, tmp_path: Path, kind: str):
    check_all(
        [each for each in CONTENDERS if not each.tools and not each.needs_dbbackup and each.kind == kind],
        database,
        tmp_path,
    )


def test_the_stock_tools(database: Path, tmp_path: Path):
    others = {each.name for each in with_tools("restic", "borg")}
    stock = with_tools("cp", "sqlite3", "zstd", "age")
    check_all([each for each in stock if each.name not in others], database, tmp_path)


def test_restic(database: Path, tmp_path: Path):
    check_all(with_tools("restic"), database, tmp_path)


def test_borg(database: Path, tmp_path: Path):
    check_all(with_tools("borg"), database, tmp_path)


@pytest.mark.usefixtures("environment")
def test_django_dbbackup(database: Path, tmp_path: Path):
    check_all([each for each in CONTENDERS if each.needs_dbbackup], database, tmp_path)


def test_every_contender_is_in_one_of_these_tests():
    alone = [each for each in CONTENDERS if not each.tools and not each.needs_dbbackup]
    tested = [*alone, *with_tools("cp", "sqlite3", "zstd", "age", "restic", "borg")]
    assert {each.name for each in tested} == {each.name for each in CONTENDERS if not each.needs_dbbackup}
    assert {each.store for each in CONTENDERS} - {None} == set(STORES)


# When something does not go well


def test_a_run_is_stopped_at_its_limit_with_all_that_it_started(database: Path, tmp_path: Path):
    started = time.monotonic()
    with pytest.raises(ContenderError, match="did not end within 1 s"):
        measure(named("a writer beside nothing"), database, work=tmp_path, limit_seconds=1)
    assert time.monotonic() - started < 20
    assert names_in(tmp_path) == {"sample.sqlite3"}
    assert not processes_that_name(tmp_path)


def processes_that_name(path: Path) -> list[str]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(str(path).encode() in word for word in words):
            found.append(str(words))
    return found


def test_a_program_that_fails_is_named_with_its_last_words(tmp_path: Path):
    with pytest.raises(ContenderError, match=r"bash failed with exit code 3: no room"):
        run_tool("bash", "-c", "echo first >&2; echo no room >&2; exit 3")
    with pytest.raises(ContenderError, match=r"did not end within 0\.2 s"):
        run_tool("sleep", "60", seconds=0.2)
    with pytest.raises(ContenderError, match="cannot be run"):
        run_tool(tmp_path / "nothing")


def test_who_fails_or_is_not_installed_does_not_end_the_rounds(tmp_path: Path):
    lacking = replace(SHELL, name="another shell", tools=("no-such-program",))
    unknown = replace(CREATE, name="a name that no contender has")
    results = run_rounds(
        1,
        work=tmp_path,
        count=2,
        once_above_seconds=60,
        limit_seconds=LIMIT_SECONDS,
        contenders=(lacking, unknown, CREATE, EXTRACT),
    )
    assert results.failures[lacking.name] == "not installed: no-such-program"
    assert "there is no contender" in results.failures[unknown.name]
    assert [len(results.of(each)) for each in (lacking, unknown, CREATE, EXTRACT)] == [0, 0, 2, 2]
    assert names_in(tmp_path) == {"sample-1.sqlite3"}


def test_who_is_slow_is_run_once(tmp_path: Path):
    results = run_rounds(
        1, work=tmp_path, count=3, once_above_seconds=0, limit_seconds=LIMIT_SECONDS, contenders=(CREATE,)
    )
    assert len(results.of(CREATE)) == 1


def test_what_is_prepared_is_not_measured(database: Path, tmp_path: Path):
    contender = replace(SHELL, run=lambda *_: None, prepare=lambda *_: time.sleep(0.3))
    (tmp_path / "folder").mkdir()
    found = run_here(contender, database, tmp_path / "folder", report=tmp_path / "report.json")
    assert found.seconds < 0.2


def test_a_page_without_place_is_refused_before_anything_is_measured(tmp_path: Path):
    page, work = tmp_path / "page.md", tmp_path / "work"
    page.write_text("nothing", encoding="utf-8")
    with pytest.raises(SystemExit, match="must hold one line"):
        main(["--write-docs", str(page), "--work", str(work), "--megabytes", "1"])
    assert names_in(tmp_path) == {"page.md"}


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--megabytes", "-1"], ["--sections", "none"]])
def test_arguments_that_make_no_sense_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_section_that_fails_gives_no_lines(capsys: pytest.CaptureFixture[str]):
    assert run_section("sample") == [], "it wants a path"
    assert run_section("no_such_module") == []
    assert "There is no section no_such_module." in capsys.readouterr().err
