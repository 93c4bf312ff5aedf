"""Uploading an archive of others: into quarantine, judged, imported into a named database, and gone again."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.models import AuditEvent, Backup, Database, Job, TriageRun
from backups_app.services.clock import tick
from backups_app.services.jobs.run import run_job
from backups_app.services.quarantine import sweep_quarantine
from tests.admin.conftest import Person
from tests.admin.markup import page_of
from tests.admin.restores import somebody
from tests.foreign import good_copy
from tests.support import names_in

LIST = "/admin/backups_app/triagerun/"
UPLOAD = f"{LIST}upload/"
RIGHTS = ("view_triagerun", "view_triagefile", "view_job", "view_backup", "import_backup")
HOSTILE = "../../etc/<script>alert(1)</script>'\"%s{{ x }}\u202egnp.db"


@pytest.fixture
def ivan(home: Path, db_catalog: None) -> Person:
    """Somebody who may import."""
    return somebody("ivan", *RIGHTS)


@pytest.fixture
def good(tmp_path: Path) -> bytes:
    """A database of somebody else that holds data."""
    return good_copy(tmp_path, tmp_path / "good.db").read_bytes()


def quarantined(home: Path) -> list[str]:
    return sorted(names_in(home / "quarantine")) if (home / "quarantine").exists() else []


def send(person: Person, content: bytes, *, name: str = "old.db", **more: Any) -> Any:
    return person.post(UPLOAD, {"opened": timezone.now().isoformat(), "archive": _file(name, content), **more})


def _file(name: str, content: bytes) -> SimpleUploadedFile:
    file = SimpleUploadedFile("x", content)
    file._name = name  # type: ignore[attr-defined] - as a hostile client sends it
    return file


def do(kind: str) -> Job:
    job = Job.objects.filter(state="queued").order_by("created_at").get()
    assert job.options["do"] == kind
    run_job(job.pk)
    return Job.objects.get(pk=job.pk)


def test_the_whole_way_from_upload_to_backup(ivan: Person, good: bytes, home: Path, shop: Database):
    response = send(ivan, good, name="prod 2026.db")
    run = TriageRun.objects.get()
    assert run.job is not None
    assert response["Location"] == f"/admin/backups_app/job/{run.job.pk}/change/"
    (name,) = quarantined(home)
    path = home / "quarantine" / name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (run.paths, run.upload_name) == ([str(path)], "prod 2026.db")
    assert path.read_bytes() == good
    assert do("judge").state == "succeeded"
    row = run.files.get()
    assert (row.verdict, row.path) == ("holds data", "prod 2026.db")
    assert not Backup.objects.exists(), "an import is a step of its own"

    confirm = f"{LIST}{run.pk}/import/"
    assert "removed from quarantine" in page_of(ivan.get(confirm)).text
    assert "This field is required" in page_of(ivan.post(confirm, {})).text, "the database must be named"
    assert not Job.objects.filter(state="queued").exists()
    ivan.post(confirm, {"into": str(shop.pk)})
    assert do("import").state == "succeeded"
    backup = Backup.objects.get()
    assert (backup.state, backup.trigger, backup.database) == ("verified", "import", shop)
    assert backup.note.startswith("Imported from prod 2026.db (")
    assert quarantined(home) == []
    run.refresh_from_db()
    assert run.upload_removed_at is not None
    actions = list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))
    assert [each for each in actions if each in ("upload", "ask-import", "import", "remove-upload")] == [
        "upload",
        "ask-import",
        "import",
        "remove-upload",
    ]
    assert "(removed)" in page_of(ivan.get(f"{LIST}{run.pk}/change/")).text


def test_a_name_from_outside_is_text_and_nothing_else(ivan: Person, good: bytes, home: Path, tmp_path: Path):
    send(ivan, good, name=HOSTILE)
    run = TriageRun.objects.get()
    do("judge")
    (name,) = quarantined(home)
    assert len(name) == 32
    assert set(name) <= set("0123456789abcdef")
    for page in (LIST, f"{LIST}{run.pk}/change/", "/admin/backups_app/triagefile/", f"{LIST}{run.pk}/remove-upload/"):
        source = ivan.get(page).content.decode()
        assert "<script>alert" not in source, page
        assert page_of(ivan.get(page)).inline_code == []
    assert not list(tmp_path.rglob("*script*"))


@pytest.mark.parametrize("content", [b"\x00", b"PK\x03\x04" + b"\xff" * 500, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_hostile_files_are_judged_and_stay_inert(ivan: Person, home: Path, content: bytes):
    send(ivan, content)
    assert do("judge").state == "succeeded"
    run = TriageRun.objects.get()
    assert not run.files.filter(is_importable=True).exists()
    assert ivan.post(f"{LIST}{run.pk}/import/", {}).status_code == 200
    assert not Job.objects.filter(state="queued").exists()
    assert ivan.get(f"{LIST}{run.pk}/delete-useless/").status_code == 403
    assert ivan.post(f"{LIST}{run.pk}/remove-upload/").status_code == 302
    assert quarantined(home) == []


def test_the_limit_counts_while_it_arrives(ivan: Person, home: Path, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "UPLOAD_MAX_BYTES": 100_000}
    page = page_of(send(ivan, b"x" * 100_001))
    assert "The upload has more than 100,000 bytes. It was not kept." in page.text
    page = page_of(send(ivan, b"x" * 300_000))
    assert "The upload has more than 100,000 bytes. It was not kept." in page.text, "announced already"
    assert quarantined(home) == []
    assert not TriageRun.objects.exists()
    assert send(ivan, b"x" * 100_000).status_code == 302


@pytest.mark.parametrize("form", [{}, {"archive": ""}, {"other": SimpleUploadedFile("x", b"y")}])
def test_without_a_file_nothing_happens(ivan: Person, home: Path, form: dict[str, Any]):
    response = ivan.post(UPLOAD, {"opened": timezone.now().isoformat(), **form})
    assert "Choose a file." in page_of(response).text
    assert quarantined(home) == []
    assert not TriageRun.objects.exists()


def test_an_empty_file_is_refused(ivan: Person, home: Path):
    assert "The upload is empty." in page_of(send(ivan, b"")).text
    assert quarantined(home) == []


def test_only_one_file_of_a_form_is_taken(ivan: Person, home: Path, good: bytes):
    send(ivan, good, other=_file("more.db", b"more"))
    assert len(quarantined(home)) == 1


def test_a_second_click_uploads_nothing_twice(ivan: Person, good: bytes, home: Path):
    opened = timezone.now().isoformat()
    for _ in range(2):
        assert ivan.post(UPLOAD, {"opened": opened, "archive": _file("old.db", good)}).status_code == 302
    assert TriageRun.objects.count() == 1
    assert len(quarantined(home)) == 1


def test_without_permission_or_token_nothing_is_kept(
    ivan: Person, good: bytes, home: Path, person: Callable[..., Person]
):
    for name in ("staff", "viewer"):
        assert send(person(name), good).status_code == 403
    assert send(person("anonymous"), good).status_code == 302
    strict = Client(enforce_csrf_checks=True)
    assert ivan.user is not None
    strict.force_login(ivan.user)
    assert strict.post(UPLOAD, {"archive": _file("old.db", good)}).status_code == 403
    assert quarantined(home) == []
    assert not TriageRun.objects.exists()


def test_with_its_token_a_strict_site_takes_it(ivan: Person, good: bytes, home: Path):
    strict = Client(enforce_csrf_checks=True)
    assert ivan.user is not None
    strict.force_login(ivan.user)
    hidden = page_of(strict.get(UPLOAD)).hidden
    assert strict.post(UPLOAD, {**hidden, "archive": _file("old.db", good)}).status_code == 302
    assert len(quarantined(home)) == 1


def test_what_a_middleware_has_read_before_is_not_taken(ivan: Person, good: bytes, home: Path, settings: Settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.reads_everything"]
    assert "A middleware of this site has read the upload already" in page_of(send(ivan, good)).text
    assert quarantined(home) == []


def reads_everything(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A middleware of a host that looks into every form."""

    def middleware(request: Any) -> Any:
        request.POST.get("anything")
        return get_response(request)

    return middleware


def test_what_nobody_imports_is_swept_after_a_time(ivan: Person, good: bytes, home: Path):
    send(ivan, good)
    run = TriageRun.objects.get()
    now = timezone.now()
    assert sweep_quarantine(now=now + timedelta(hours=25)) == 0, "a job waits for it"
    do("judge")
    assert sweep_quarantine(now=now + timedelta(hours=23)) == 0
    assert len(quarantined(home)) == 1
    tick(now=now + timedelta(hours=25))
    assert quarantined(home) == []
    run.refresh_from_db()
    assert run.upload_removed_at is not None
    event = AuditEvent.objects.get(action="remove-upload")
    assert (event.actor_name, event.subject) == ("system", run.pk)
    response = ivan.post(f"{LIST}{run.pk}/import/", {"into": "1"})
    assert not Job.objects.filter(state="queued").exists()
    assert response.status_code in (200, 302)


def test_the_rest_of_an_aborted_upload_is_swept(ivan: Person, home: Path):
    (home / "quarantine").mkdir(mode=0o700, parents=True)
    rest = home / "quarantine" / "0123"
    rest.touch()
    assert sweep_quarantine(now=timezone.now()) == 0
    os.utime(rest, (1, 1))
    assert sweep_quarantine(now=timezone.now()) == 1
    assert quarantined(home) == []


def test_a_file_that_was_put_in_place_of_an_upload_is_not_followed(
    ivan: Person, good: bytes, home: Path, tmp_path: Path
):
    send(ivan, good)
    (name,) = quarantined(home)
    (home / "quarantine" / name).unlink()
    (home / "quarantine" / name).symlink_to(tmp_path / "good.db")
    job = do("judge")
    assert (job.state, job.failure_code) == ("failed", "refused")


def test_nobody_removes_what_a_job_works_on(ivan: Person, good: bytes, home: Path):
    send(ivan, good)
    run = TriageRun.objects.get()
    response = ivan.post(f"{LIST}{run.pk}/remove-upload/", follow=True)
    assert "A job works on this upload" in page_of(response).text
    assert len(quarantined(home)) == 1
