"""``restore`` on the command line: to a new file, and into a live database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from backups_app.models import AuditEvent, Backup, Database, Restore
from backups_app.services.databases import add_database
from tests.conftest import ACTOR
from tests.console import Finished
from tests.services.restores.test_request import SPOILED
from tests.support import build, connected, content_of, names_in

Run = Callable[..., Finished]


@pytest.fixture
def backup(shop: Database, make_backup: Callable[..., Backup]) -> Backup:
    return make_backup(shop)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_the_new_file_equals_the_source(run: Run, backup: Backup, shop_file: Path, out: Path):
    finished = run("restore", backup.pk, "--to", out / "new.sqlite3", "--reason", "a look", "--json")
    assert finished.code == 0
    restore = finished.document["restore"]
    assert (restore["state"], restore["backup"], restore["reason"]) == ("succeeded", backup.pk, "a look")
    assert content_of(out / "new.sqlite3") == content_of(shop_file)
    assert names_in(out) == {"new.sqlite3"}


def test_people_are_told_where_it_is(run: Run, backup: Backup, out: Path):
    assert str(out / "new.sqlite3") in run("restore", backup.pk, "--to", out / "new.sqlite3").stdout


def test_a_relative_path_counts_from_here(run: Run, backup: Backup, out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(out)
    assert run("restore", backup.pk, "--to", "new.sqlite3").code == 0
    assert names_in(out) == {"new.sqlite3"}


def test_an_existing_file_is_refused_byte_for_byte_untouched(run: Run, backup: Backup, out: Path):
    (out / "new.sqlite3").write_bytes(b"precious")
    finished = run("restore", backup.pk, "--to", out / "new.sqlite3", "--json")
    assert finished.code == 7
    assert "restore" not in finished.document
    assert (out / "new.sqlite3").read_bytes() == b"precious"


def test_a_left_over_wal_is_refused(run: Run, backup: Backup, out: Path):
    (out / "new.sqlite3-wal").write_bytes(b"stale")
    assert run("restore", backup.pk, "--to", out / "new.sqlite3").code == 7
    assert names_in(out) == {"new.sqlite3-wal"}


@pytest.mark.parametrize("target", [".", "/", "out"])
def test_a_folder_is_refused(
    run: Run, backup: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: Path, target
):
    monkeypatch.chdir(tmp_path)
    assert run("restore", backup.pk, "--to", target).code == 7
    assert names_in(out) == set()


def test_a_missing_folder_is_exit_code_6(run: Run, backup: Backup, out: Path):
    assert run("restore", backup.pk, "--to", out / "missing" / "new.sqlite3").code == 6
    assert names_in(out) == set()


def test_a_file_in_place_of_the_folder_is_exit_code_6(run: Run, backup: Backup, out: Path):
    (out / "file").write_text("x")
    assert run("restore", backup.pk, "--to", out / "file" / "new.sqlite3").code == 6
    assert names_in(out) == {"file"}


def test_a_name_that_is_too_long_is_a_message(run: Run, backup: Backup, out: Path):
    finished = run("restore", backup.pk, "--to", out / ("n" * 300))
    assert finished.code == 2
    assert "Error:" in finished.stderr
    assert names_in(out) == set()


def test_a_missing_archive_is_exit_code_3_and_no_file(
    run: Run, backup: Backup, out: Path, archive_of: Callable[[Backup], Path]
):
    archive_of(backup).unlink()
    finished = run("restore", backup.pk, "--to", out / "new.sqlite3", "--json")
    assert finished.code == 3
    assert finished.document["errors"][0]["code"] == "unreachable"
    assert names_in(out) == set()


def test_an_altered_archive_is_exit_code_3_and_no_file(
    run: Run, backup: Backup, out: Path, archive_of: Callable[[Backup], Path]
):
    content = bytearray(archive_of(backup).read_bytes())
    content[-1] ^= 1
    archive_of(backup).write_bytes(content)
    assert run("restore", backup.pk, "--to", out / "new.sqlite3").code == 3
    assert names_in(out) == set()


def test_an_unknown_id_is_exit_code_6(run: Run, backup: Backup, out: Path):
    assert run("restore", "nothing", "--to", out / "new.sqlite3").code == 6
    assert names_in(out) == set()


def test_the_beginning_of_an_id_is_enough(run: Run, backup: Backup, out: Path):
    assert run("restore", backup.pk[:5], "--to", out / "new.sqlite3").code == 0


def test_a_backup_that_never_had_an_archive_is_exit_code_6(
    run: Run, shop: Database, shop_file: Path, make_backup: Callable[..., Backup], out: Path
):
    shop_file.unlink()
    assert run("restore", make_backup(shop).pk, "--to", out / "new.sqlite3").code == 6
    assert names_in(out) == set()


# Into a live database


KEYS = {
    "id",
    "backup",
    "database",
    "state",
    "requested_by",
    "approved_by",
    "reason",
    "safety_backup",
    "preview",
    "report",
}


def rows(path: Path) -> list[int]:
    """Products and sales."""
    with connected(path) as connection:
        return [connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("product", "sale")]


def ask(run: Run, backup: Backup, *arguments: object) -> Finished:
    return run("restore", backup.pk, "--reason", "why", "--user", "anna", "--json", *arguments)


def test_a_request_is_filed_and_nothing_runs(run: Run, changed: Backup, shop_file: Path):
    finished = ask(run, changed)
    assert finished.code == 0
    assert set(finished.document) == {"restore"}
    restore = finished.document["restore"]
    assert restore.keys() >= KEYS
    assert (restore["state"], restore["requested_by"], restore["approved_by"]) == ("requested", "anna", None)
    assert (restore["backup"], restore["database"], restore["reason"]) == (changed.pk, "shop", "why")
    assert (restore["safety_backup"], restore["report"]) == (None, None)
    assert restore["preview"]["tables"][1] == {"name": "sale", "now": 0, "after": 4, "added": 4, "lost": 0}
    assert rows(shop_file) == [4, 0]


def test_people_see_the_preview_and_the_next_step(run: Run, changed: Backup):
    finished = run("restore", changed.pk, "--reason", "why", "--user", "anna")
    for expected in ("product", "lost", "writers wait", f"backup approve {Restore.objects.get().pk} --user NAME"):
        assert expected in finished.stdout
    assert finished.stderr == ""


def test_the_system_account_asks_when_nobody_is_named(run: Run, changed: Backup):
    finished = run("restore", changed.pk, "--reason", "why", "--json")
    assert finished.document["restore"]["requested_by"] == "system"


@pytest.mark.parametrize(
    ("user", "code"), [("nobody", 6), ("staff", 7), ("gone", 7), ("", 6), ("dora", 0), ("anna", 0)]
)
def test_who_may_ask(run: Run, changed: Backup, user: str, code: int):
    finished = run("restore", changed.pk, "--reason", "why", "--user", user, "--json")
    assert finished.code == code
    assert Restore.objects.count() == (code == 0)


def test_a_reason_is_needed_for_a_live_database(run: Run, changed: Backup):
    assert run("restore", changed.pk, "--user", "anna").code == 2
    assert not Restore.objects.exists()


def test_an_unknown_target_is_not_found(run: Run, changed: Backup):
    assert ask(run, changed, "--into", "nowhere").code == 6


def test_the_backup_of_another_database_needs_an_override_with_a_reason(
    run: Run, changed: Backup, tmp_path: Path, make_backup: Callable[..., Backup]
):
    path = build(tmp_path / "other.db", "CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    other = make_backup(add_database("other", path, actor=ACTOR))
    finished = ask(run, other, "--into", "shop")
    assert finished.code == 7
    assert "wrong_database" in finished.stderr
    assert ask(run, other, "--into", "shop", "--override", "wrong_database").code == 2
    assert ask(run, other, "--into", "shop", "--override", "wrong_database= ").code == 2
    assert ask(run, other, "--into", "shop", "--override", "gravity=off").code == 7
    assert not Restore.objects.exists()
    finished = ask(run, other, "--into", "shop", "--override", "wrong_database=on purpose")
    assert finished.code == 0
    assert finished.document["restore"]["overrides"] == {"wrong_database": "on purpose"}


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_spoiled_archive_is_exit_code_3_and_no_request(
    run: Run, changed: Backup, shop_file: Path, archive_of: Callable[[Backup], Path], spoil: Callable[[Path], None]
):
    spoil(archive_of(changed))
    before = shop_file.read_bytes()
    finished = ask(run, changed)
    assert finished.code == 3
    assert "restore" not in finished.document
    assert not Restore.objects.exists()
    assert shop_file.read_bytes() == before


def test_yes_is_refused_where_two_people_are_needed_and_files_nothing(run: Run, changed: Backup, shop_file: Path):
    finished = ask(run, changed, "--yes")
    assert finished.code == 7
    assert "second person" in finished.stderr
    assert not Restore.objects.exists()
    assert rows(shop_file) == [4, 0]


@pytest.mark.parametrize(("user", "code"), [("anna", 0), ("dora", 7), ("staff", 7), ("nobody", 6), (None, 7)])
def test_yes_runs_at_once_where_one_person_is_enough(
    run: Run, changed: Backup, shop_file: Path, settings: Settings, user: str | None, code: int
):
    settings.BACKUPS = {**settings.BACKUPS, "FOUR_EYES": False}
    given = ["--user", user] if user is not None else []
    finished = run("restore", changed.pk, "--reason", "why", "--yes", "--json", *given)
    assert finished.code == code, finished.stderr
    assert rows(shop_file) == ([3, 4] if code == 0 else [4, 0])
    assert Restore.objects.count() == (code == 0)
    if code == 0:
        restore = finished.document["restore"]
        assert (restore["state"], restore["approved_by"], restore["self_approved"]) == ("succeeded", "anna", True)
        assert AuditEvent.objects.filter(detail__startswith="self-approved").exists()


def test_options_of_a_live_restore_are_refused_for_a_new_file(run: Run, backup: Backup, out: Path):
    assert run("restore", backup.pk, "--to", out / "new", "--override", "empty=x").code == 2
    assert run("restore", backup.pk, "--to", out / "new", "--migrate").code == 2
    assert names_in(out) == set()


def test_without_its_signature_a_backup_is_restored_only_with_a_reason(
    run: Run, changed: Backup, out: Path, archive_of: Callable[[Backup], Path]
):
    signature = Path(str(archive_of(changed)).replace(".sqlite3.zst", ".manifest.sig"))
    signature.write_bytes(bytes(64))
    refused = run("restore", changed.pk, "--to", out / "new")
    assert refused.code == 7
    assert "unsigned" in refused.stderr
    assert names_in(out) == set()
    assert run("restore", changed.pk, "--to", out / "new", "--override", "unsigned=").code == 2
    assert run("restore", changed.pk, "--to", out / "new", "--override", "unsigned=the disk lost it").code == 0
    assert names_in(out) == {"new"}
    assert ask(run, changed).code == 7
    signature.unlink()
    assert ask(run, changed).code == 7
    finished = ask(run, changed, "--override", "unsigned=the disk lost it")
    assert finished.code == 0
    assert finished.document["restore"]["overrides"] == {"unsigned": "the disk lost it"}


@pytest.mark.parametrize("options", [["-v", "0"], ["--traceback"], ["--verbosity", "2"], ["--no-color"]])
def test_options_of_every_command_may_follow_the_verb(run: Run, changed: Backup, options: list[str]):
    assert ask(run, changed, *options).code == 0
