"""Triage as jobs: judged, imported and deleted by a worker, within the folders that are open to it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from pytest_django.fixtures import Settings

from backups_app.core.errors import NotFoundError, RefusedError
from backups_app.jobs.claim import Claim, claim_queued
from backups_app.models import AuditEvent, Backup, Database, Job, TriageFile, TriageRun
from backups_app.services.jobs import cancel_job
from backups_app.services.jobs.run import run_job
from backups_app.services.triage import runs
from backups_app.services.triage.runs import ask_deletion, ask_import, ask_triage
from tests.conftest import ACTOR
from tests.foreign import SITE, good_copy, legacy_container, naive_copy
from tests.support import names_in

KEY = os.urandom(32)


@pytest.fixture
def old(tmp_path: Path, home: Path, settings: Settings, db_catalog: None) -> Path:
    """A folder that is open to triage, with one archive of each verdict."""
    folder = tmp_path / "old"
    folder.mkdir()
    good = good_copy(tmp_path, folder / "good.db")
    naive_copy(tmp_path, folder / "bare.db", checkpointed=SITE)
    (folder / "zero.db").touch()
    (folder / "cut.db").write_bytes(good.read_bytes()[:5000])
    (folder / "locked.enc").write_bytes(legacy_container(b"x" * 100, os.urandom(32)))
    (folder / "dump").write_bytes(b"PGDMP" + bytes(99))
    (tmp_path / "master.key").write_bytes(KEY)
    settings.BACKUPS = {**settings.BACKUPS, "TRIAGE_ROOTS": [folder], "TRIAGE_KEY_FILES": [tmp_path / "master.key"]}
    return folder


def asked(*paths: Path) -> TriageRun:
    return ask_triage([str(each) for each in paths], actor=ACTOR, trigger="admin")


def done(run: TriageRun) -> TriageRun:
    assert run.job is not None
    run_job(run.job.pk)
    return TriageRun.objects.select_related("job").get(pk=run.pk)


def job_of(job: Job) -> Job:
    run_job(job.pk)
    return Job.objects.get(pk=job.pk)


def files_of(run: TriageRun) -> dict[str, TriageFile]:
    return {Path(each.path).name: each for each in run.files.all()}


def test_a_job_judges_every_file_and_keeps_a_row_of_each(old: Path):
    run = asked(old)
    assert run.job is not None
    assert (run.job.state, run.job.kind, run.job.database) == ("queued", "triage", None)
    run = done(run)
    assert run.job is not None
    assert run.job.state == "succeeded", run.job.outcome
    assert {name: row.verdict for name, row in files_of(run).items()} == {
        "good.db": "holds data",
        "bare.db": "schema only",
        "zero.db": "empty",
        "cut.db": "corrupt",
        "locked.enc": "key missing",
        "dump": "not a database",
    }
    good = files_of(run)["good.db"]
    assert (good.rows, good.tables, good.is_importable, good.is_useless) == (7, 5, True, False)
    assert good.newest_row_at is not None
    assert run.totals is not None
    assert (run.totals["files"], run.totals["reclaimable_files"]) == (6, 2)
    assert run.finished_at is not None
    assert "6 files were judged: 1 holds data, 2 are useless" in run.job.outcome


def test_the_progress_of_a_job_is_in_bytes_of_all_files(old: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[str, int, int]] = []
    note = Claim._note_progress

    def watched(self: Claim, phase: str, done_bytes: int, total_bytes: int) -> None:
        seen.append((phase, done_bytes, total_bytes))
        note(self, phase, done_bytes, total_bytes)

    monkeypatch.setattr(Claim, "_note_progress", watched)
    done(asked(old))
    total = sum(each.stat().st_size for each in old.iterdir())
    assert {(phase, all_bytes) for phase, _, all_bytes in seen} == {("judge", total)}
    amounts = [amount for _, amount, _ in seen]
    assert amounts == sorted(amounts)
    assert amounts[-1] == total


def test_good_files_are_imported_by_a_job_once(old: Path):
    run = done(asked(old))
    job = job_of(ask_import(run, actor=ACTOR, trigger="admin"))
    assert (job.state, job.outcome) == ("succeeded", "1 imported.")
    backup = Backup.objects.get()
    assert (backup.state, backup.trigger, backup.requested_by_name) == ("verified", "import", "anna")
    assert files_of(run)["good.db"].backup == backup
    with pytest.raises(RefusedError, match="nothing to import"):
        ask_import(run, actor=ACTOR, trigger="admin")
    again = done(asked(old))
    job = job_of(ask_import(again, actor=ACTOR, trigger="admin"))
    assert job.outcome == "0 imported, 1 were imported before."
    assert Backup.objects.count() == 1
    assert files_of(again)["good.db"].backup == backup


def test_imports_can_belong_to_a_database_under_care(old: Path, shop: Database, settings: Settings):
    run = done(asked(old))
    job_of(ask_import(run, into=shop, actor=ACTOR, trigger="admin"))
    assert Backup.objects.get().database == shop
    other = done(asked(old))
    job = ask_import(other, into=shop, actor=ACTOR, trigger="admin")
    Database.objects.filter(pk=shop.pk).update(is_under_care=False)
    assert job_of(job).state == "failed"


def test_useless_files_are_deleted_by_a_job_and_only_they(old: Path):
    run = done(asked(old))
    job = job_of(ask_deletion(run, actor=ACTOR, trigger="admin"))
    assert (job.state, job.outcome) == ("succeeded", "2 deleted.")
    assert names_in(old) == {"good.db", "cut.db", "locked.enc", "dump"}
    rows = files_of(run)
    assert {name for name, row in rows.items() if row.deleted_at} == {"bare.db", "zero.db"}
    events = AuditEvent.objects.filter(action="delete-foreign", outcome="done")
    assert {event.subject for event in events} == {rows["bare.db"].sha256, rows["zero.db"].sha256}
    assert {event.actor_name for event in events} == {"anna"}


def test_chosen_files_only_and_never_another_kind(old: Path):
    run = done(asked(old))
    rows = files_of(run)
    ids = [rows["zero.db"].pk, rows["good.db"].pk, rows["cut.db"].pk]
    job_of(ask_deletion(run, files=ids, actor=ACTOR, trigger="admin"))
    assert names_in(old) == {"good.db", "bare.db", "cut.db", "locked.enc", "dump"}
    with pytest.raises(RefusedError):
        ask_deletion(run, files=[rows["good.db"].pk], actor=ACTOR, trigger="admin")
    with pytest.raises(RefusedError):
        ask_import(run, files=[rows["bare.db"].pk], actor=ACTOR, trigger="admin")


def test_a_file_that_changed_since_is_kept_and_says_why(old: Path):
    run = done(asked(old))
    good_copy(old.parent, old / "fresh.db")
    (old / "fresh.db").replace(old / "bare.db")
    job = job_of(ask_deletion(run, actor=ACTOR, trigger="admin"))
    assert job.outcome == "1 deleted, 1 not: the list of files says why."
    assert (old / "bare.db").exists()
    assert "replaced" in files_of(run)["bare.db"].outcome
    assert AuditEvent.objects.get(action="delete-foreign", outcome="refused")


def test_the_catalogue_itself_refuses_to_call_data_useless_or_deleted(old: Path):
    run = done(asked(old))
    good = files_of(run)["good.db"]
    for change in ({"is_useless": True}, {"deleted_at": good.newest_row_at}):
        with pytest.raises(IntegrityError), transaction.atomic(using="catalog"):
            TriageFile.objects.filter(pk=good.pk).update(**change)


# What may be judged


@pytest.mark.parametrize("place", ["..", "../home", "linked", "missing", "../old-too"])
def test_nothing_outside_the_open_folders_is_judged(old: Path, tmp_path: Path, place: str):
    (tmp_path / "old-too").mkdir()
    (old / "linked").symlink_to(tmp_path / "old-too")
    with pytest.raises(RefusedError, match="not there, or lies outside"):
        asked(old / place)
    assert not TriageRun.objects.exists()
    assert not Job.objects.exists()


def test_relative_paths_are_refused(old: Path):
    with pytest.raises(RefusedError):
        ask_triage(["old"], actor=ACTOR, trigger="admin")


def test_without_the_setting_nothing_is_judged(old: Path, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "TRIAGE_ROOTS": []}
    with pytest.raises(RefusedError):
        asked(old)


def test_a_folder_that_was_closed_since_is_judged_imported_and_deleted_no_more(old: Path, settings: Settings):
    run, waiting = done(asked(old)), asked(old)
    jobs = [ask(run, actor=ACTOR, trigger="admin") for ask in (ask_import, ask_deletion)]
    settings.BACKUPS = {**settings.BACKUPS, "TRIAGE_ROOTS": []}
    before = names_in(old)
    assert done(waiting).job.state == "failed"  # type: ignore[union-attr]
    assert [job_of(each).state for each in jobs] == ["failed", "failed"]
    assert names_in(old) == before
    assert not Backup.objects.exists()


def test_a_run_that_is_not_over_allows_nothing(old: Path):
    run = asked(old)
    for ask in (ask_import, ask_deletion):
        with pytest.raises(RefusedError, match="not over"):
            ask(run, actor=ACTOR, trigger="admin")


# Cancel, death, hostile names


def test_a_cancelled_job_keeps_what_it_found_so_far(old: Path, monkeypatch: pytest.MonkeyPatch):
    run = asked(old)
    assert run.job is not None
    judge_files = runs.judge_files

    def cancelling(*arguments: Any, **options: Any) -> Any:
        for number, judged in enumerate(judge_files(*arguments, **options)):
            if number == 2:
                options["watch"]._is_cancelled = lambda: True
            yield judged

    monkeypatch.setattr(runs, "judge_files", cancelling)
    run = done(run)
    assert run.job is not None
    assert run.job.state == "cancelled"
    assert run.files.count() == 3
    assert run.totals is not None
    assert run.totals["files"] == 3
    assert run.finished_at is None


def test_a_job_that_is_cancelled_while_it_waits_does_nothing(old: Path):
    run = asked(old)
    assert run.job is not None
    cancel_job(run.job, actor=ACTOR)
    assert done(run).files.count() == 0


def test_a_second_attempt_begins_anew(old: Path):
    run = asked(old)
    assert run.job is not None
    TriageFile.objects.create(
        run=run,
        path="of the first",
        location=b"x",
        format="x",
        verdict="empty",
        size_bytes=1,
        is_judged=False,
        is_useless=False,
    )
    assert set(files_of(done(run))) == names_in(old)


def test_an_import_that_was_begun_twice_imports_once(old: Path):
    run = done(asked(old))
    job = ask_import(run, actor=ACTOR, trigger="admin")
    claim = claim_queued(job.pk)
    assert claim is not None
    first = runs.run_claimed_triage(claim, actor=ACTOR)
    second = runs.run_claimed_triage(claim, actor=ACTOR)
    assert (first.outcome, second.outcome) == ("1 imported.", "0 imported.")
    assert Backup.objects.count() == 1


def test_hostile_names_are_judged_imported_and_deleted(old: Path):
    good, bare = (old / "good.db").read_bytes(), (old / "bare.db").read_bytes()
    names = ["\x1b[2Jx.db", "a\nb.db", "\udcff\udcfe.db", "'; DROP TABLE x; --.db", "-rf.db", "\u202etxt.db"]
    for number, name in enumerate(names):
        (old / name).write_bytes(good if number % 2 else bare)
    run = done(asked(old))
    assert Counter(run.files.values_list("verdict", flat=True))["holds data"] == 4
    for path in run.files.values_list("path", flat=True):
        path.encode()
        assert path.isprintable()
    assert job_of(ask_import(run, actor=ACTOR, trigger="admin")).outcome == "1 imported, 3 were imported before."
    job_of(ask_deletion(run, actor=ACTOR, trigger="admin"))
    assert names_in(old) == {"good.db", "cut.db", "locked.enc", "dump", *names[1::2]}


def test_a_job_without_its_run_fails_in_words(home: Path, db_catalog: None, make_claim: Callable[..., Claim]):
    with pytest.raises(NotFoundError):
        runs.run_claimed_triage(make_claim({"do": "judge", "run": "none"}), actor=ACTOR)


@pytest.fixture
def make_claim() -> Callable[..., Claim]:
    """A function that claims a job with these options."""
    return lambda options: Claim(Job(kind="triage", options=options))
