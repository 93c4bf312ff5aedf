"""Triage on the screen: who may start, see, import and delete; nothing happens on GET; hostile names are text."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from pytest_django.fixtures import Settings

from backups_app.admin.asking import form_opened_at
from backups_app.models import AuditEvent, Backup, Database, Job, TriageFile, TriageRun
from backups_app.services.jobs.run import run_job
from backups_app.services.triage.runs import ask_triage
from tests.admin.conftest import Person
from tests.admin.markup import page_of
from tests.conftest import ACTOR
from tests.foreign import SITE, good_copy, naive_copy
from tests.support import bytes_in, names_in

LIST = "/admin/backups_app/triagerun/"
FILES = "/admin/backups_app/triagefile/"
START = f"{LIST}start/"
HOSTILE = '"><script>alert(1)<img src=x onerror=alert(1)>{{ x }}%s\u202e&lt;b&gt;.db'
MakePerson = Callable[..., Person]


@pytest.fixture
def old(tmp_path: Path, home: Path, settings: Settings) -> Path:
    """A folder that is open to triage: one good, two useless, one damaged, one with a hostile name."""
    folder = tmp_path / "old"
    folder.mkdir()
    good = good_copy(tmp_path, folder / "good.db").read_bytes()
    naive_copy(tmp_path, folder / "bare.db", checkpointed=SITE)
    (folder / "zero.db").touch()
    (folder / "cut.db").write_bytes(good[:5000])
    (folder / HOSTILE).write_bytes(good)
    settings.BACKUPS = {**settings.BACKUPS, "TRIAGE_ROOTS": [folder]}
    return folder


@pytest.fixture
def run(old: Path, db_catalog: None) -> TriageRun:
    """A finished run over that folder."""
    asked = ask_triage([str(old)], actor=ACTOR, trigger="admin")
    assert asked.job is not None
    run_job(asked.job.pk)
    return TriageRun.objects.select_related("job").get(pk=asked.pk)


@pytest.fixture
def somebody(person: MakePerson) -> Callable[..., Person]:
    """A function that makes a member of staff with exactly these permissions, and a password."""

    def make(*codenames: str) -> Person:
        someone = person("staff")
        assert someone.user is not None
        found = Permission.objects.filter(content_type__app_label="backups_app", codename__in=codenames)
        assert found.count() == len(codenames)
        someone.user.user_permissions.set(found)
        someone.user.set_password("correct horse")
        someone.user.save()
        someone.client.force_login(someone.user)
        return someone

    return make


def page(run: TriageRun, what: str = "change") -> str:
    return f"{LIST}{run.pk}/{what}/"


def row(run: TriageRun, name: str) -> TriageFile:
    (found,) = [each for each in run.files.all() if Path(each.path).name == name]
    return found


def newest_job() -> Job:
    job = Job.objects.order_by("-created_at").first()
    assert job is not None
    return job


def do(job: Job) -> Job:
    run_job(job.pk)
    return Job.objects.get(pk=job.pk)


# Who may what


def pages_of(run: TriageRun) -> list[str]:
    return [
        LIST,
        page(run),
        FILES,
        f"{FILES}{row(run, 'good.db').pk}/change/",
        START,
        page(run, "import"),
        page(run, "delete-useless"),
    ]


@pytest.mark.parametrize(
    ("rights", "expected"),
    [
        ((), [403, 403, 403, 403, 403, 403, 403]),
        (("view_triagerun", "view_triagefile"), [200, 200, 200, 200, 403, 403, 403]),
        (("view_triagerun",), [200, 200, 403, 403, 403, 403, 403]),
        (("run_triage",), [200, 200, 200, 200, 200, 403, 403]),
        (("import_backup",), [200, 200, 200, 200, 403, 200, 403]),
        (("discard_archive",), [200, 200, 200, 200, 403, 403, 200]),
    ],
)
def test_each_page_needs_its_permission(
    somebody: Callable[..., Person], run: TriageRun, old: Path, rights: tuple[str, ...], expected: list[int]
):
    someone, before = somebody(*rights), names_in(old)
    jobs = Job.objects.count()
    assert [someone.get(each).status_code for each in pages_of(run)] == expected
    allowed = expected[4:]
    fields = {"paths": "/nowhere", "password": "wrong", "into": "none"}
    for address, status in zip(pages_of(run)[4:], allowed, strict=True):
        assert someone.post(address, fields).status_code == status, address
    assert (Job.objects.count(), names_in(old)) == (jobs, before)


def test_visitors_are_sent_to_the_login(person: MakePerson, run: TriageRun):
    visitor = person("anonymous")
    for address in pages_of(run):
        for response in (visitor.get(address), visitor.post(address)):
            assert response.status_code == 302
            assert response["Location"].startswith("/admin/login/")


def test_nobody_can_add_change_or_delete_a_row(superuser: Person, run: TriageRun):
    for address, pk in ((LIST, run.pk), (FILES, row(run, "good.db").pk)):
        assert superuser.get(f"{address}add/").status_code == 403
        assert superuser.get(f"{address}{pk}/delete/").status_code == 403
        assert superuser.post(f"{address}{pk}/change/", {"verdict": "empty"}).status_code == 403
    superuser.post(FILES, {"action": "delete_selected", "_selected_action": [row(run, "good.db").pk], "post": "yes"})
    assert run.files.count() == 5


def test_only_what_one_may_do_is_offered(somebody: Callable[..., Person], run: TriageRun):
    viewer = somebody("view_triagerun", "view_triagefile")
    links = page_of(viewer.get(page(run))).links
    assert page(run, "import") not in links
    assert page(run, "delete-useless") not in links
    assert START not in page_of(viewer.get(LIST)).links
    assert not [each for each in page_of(viewer.get(FILES)).all("option") if "useless" in each.text]


@pytest.mark.parametrize("pk", ["none", "0", "%00", "9" * 40])
def test_unknown_runs_are_not_found(superuser: Person, run: TriageRun, pk: str):
    for what in ("import", "delete-useless"):
        assert superuser.get(f"{LIST}{pk}/{what}/").status_code == 404


# Start


def test_starting_queues_a_job_and_leads_to_it(superuser: Person, old: Path, db_catalog: None):
    opened = page_of(superuser.get(START))
    assert str(old) in opened.text
    assert not Job.objects.exists()
    (token,) = [each.attributes["value"] for each in opened.all("input") if each.attributes.get("name") == "opened"]
    response = superuser.post(START, {"paths": f"{old}\n", "opened": token})
    job = Job.objects.get()
    assert (job.kind, job.state, job.trigger, job.requested_by_name) == ("triage", "queued", "admin", "superuser")
    assert response["Location"] == f"/admin/backups_app/job/{job.pk}/change/"
    run = TriageRun.objects.get()
    assert (run.job, run.paths) == (job, [str(old)])
    superuser.post(START, {"paths": str(old), "opened": token})
    assert Job.objects.count() == 1, "a second click asks for no second one"
    superuser.post(START, {"paths": str(old / "good.db"), "opened": token})
    assert TriageRun.objects.first().paths == [str(old / "good.db")], "what else was asked for is not thrown away"
    assert do(job).state == "succeeded"
    text = page_of(superuser.get(f"/admin/backups_app/job/{job.pk}/change/"))
    assert page(run) in text.links


@pytest.mark.parametrize("given", ["", "/etc", "/etc/passwd", "..", "{old}/..", "{old}/missing", "{old}\n/etc", "\x00"])
def test_paths_outside_the_open_folders_are_refused_in_the_form(
    superuser: Person, old: Path, db_catalog: None, given: str
):
    response = superuser.post(START, {"paths": given.format(old=old)})
    assert response.status_code == 200
    assert page_of(response).all("ul", "errorlist")
    assert not TriageRun.objects.exists()
    assert not Job.objects.exists()


def test_without_the_setting_the_form_says_so(superuser: Person, home: Path, db_catalog: None):
    opened = page_of(superuser.get(START))
    assert "TRIAGE_ROOTS" in opened.text
    assert not opened.all("form", "walsafe-confirm")
    assert superuser.post(START, {"paths": str(home)}).status_code == 200
    assert not Job.objects.exists()


# What is shown


def test_the_run_shows_sums_that_lead_to_the_files(superuser: Person, run: TriageRun):
    shown = page_of(superuser.get(page(run)))
    for text in ("holds data", "schema only", "corrupt", "All files"):
        assert text in shown.text
    (link,) = [each for each in shown.links if "verdict__exact=holds+data" in each]
    files = page_of(superuser.get(link))
    assert "good.db" in files.text
    assert "bare.db" not in files.text
    assert page_of(superuser.get(LIST)).text.count("holds data") == 0


def test_the_files_are_listed_with_verdict_and_reason_and_can_be_filtered(superuser: Person, run: TriageRun):
    text = page_of(superuser.get(FILES)).text
    for expected in ("good.db", "3 rows of data in 2 of 5 tables.", "It has no bytes.", "sqlite"):
        assert expected in text
    useless = page_of(superuser.get(FILES, {"is_useless__exact": 1})).text
    assert "zero.db" in useless
    assert "good.db" not in useless
    assert "good.db" in page_of(superuser.get(FILES, {"q": "good"})).text


def test_hostile_file_names_are_text_on_every_page(superuser: Person, run: TriageRun):
    hostile = next(each for each in run.files.all() if "script" in each.path)
    addresses = [*pages_of(run), f"{FILES}{hostile.pk}/change/", f"{page(run, 'import')}?file={hostile.pk}"]
    for address in addresses:
        response = superuser.get(address)
        assert response.status_code == 200, address
        assert not re.search(r"<script>alert|<img src=x|<b>", response.content.decode()), address
        assert page_of(response).inline_code == [], address
    assert "{{ x }}%s" in page_of(superuser.get(FILES)).text


def test_a_run_that_is_not_over_offers_nothing(superuser: Person, old: Path, db_catalog: None):
    waiting = ask_triage([str(old)], actor=ACTOR, trigger="admin")
    shown = page_of(superuser.get(page(waiting)))
    assert page(waiting, "import") not in shown.links
    for what in ("import", "delete-useless"):
        assert "not over" in page_of(superuser.get(page(waiting, what))).text


# Import


def test_import_is_confirmed_queued_and_shown(superuser: Person, run: TriageRun, shop: Database, old: Path):
    before = bytes_in(old)
    opened = page_of(superuser.get(page(run, "import")))
    assert "good.db" in opened.text
    assert "bare.db" not in opened.text
    assert not Backup.objects.exists()
    response = superuser.post(page(run, "import"), {"into": shop.pk})
    job = newest_job()
    assert response["Location"] == f"/admin/backups_app/job/{job.pk}/change/"
    assert do(job).state == "succeeded"
    backup = Backup.objects.get()
    assert (backup.database, backup.state, backup.trigger) == (shop, "verified", "import")
    assert backup.requested_by_name == "superuser"
    assert f"/admin/backups_app/backup/{backup.pk}/change/" in page_of(superuser.get(FILES)).links
    assert "can be imported" in page_of(superuser.get(page(run, "import"))).text
    assert bytes_in(old) == before


def test_chosen_files_are_imported_from_the_list(superuser: Person, run: TriageRun):
    ids = [row(run, "good.db").pk, row(run, "bare.db").pk]
    response = superuser.post(FILES, {"action": "import_chosen", "_selected_action": ids})
    assert response.status_code == 302
    assert not Job.objects.exclude(pk=run.job_id).exists(), "the list only leads to the confirmation"
    opened = page_of(superuser.get(response["Location"]))
    assert "good.db" in opened.text
    hidden = [each.attributes["value"] for each in opened.all("input") if each.attributes.get("name") == "file"]
    assert hidden == [str(each) for each in sorted(ids)]
    superuser.post(page(run, "import"), {"file": hidden})
    assert newest_job().options["files"] == [row(run, "good.db").pk]


def test_another_form_that_was_open_too_imports_what_it_says(superuser: Person, run: TriageRun, shop: Database):
    good, other = row(run, "good.db").pk, TriageFile.objects.get(run=run, path__contains="script").pk
    token = form_opened_at()
    for file, into in ((good, ""), (good, ""), (other, ""), (other, shop.pk), (other, shop.pk)):
        superuser.post(page(run, "import"), {"file": file, "into": into, "opened": token})
    asked = [(each.options["files"], each.options.get("into")) for each in Job.objects.exclude(pk=run.job_id)]
    assert sorted(asked, key=str) == sorted([([good], None), ([other], None), ([other], "shop")], key=str)


def test_an_import_into_a_database_that_left_care_is_refused_in_the_form(
    superuser: Person, run: TriageRun, shop: Database
):
    Database.objects.filter(pk=shop.pk).update(is_under_care=False)
    assert superuser.post(page(run, "import"), {"into": shop.pk}).status_code == 200
    assert Job.objects.count() == 1


# Delete


def test_deletion_needs_the_password_and_takes_the_useless_only(
    somebody: Callable[..., Person], run: TriageRun, old: Path
):
    someone = somebody("discard_archive", "view_job")
    opened = page_of(someone.get(page(run, "delete-useless")))
    assert "cannot be undone" in opened.text
    assert "bare.db" in opened.text
    assert "good.db" not in opened.text
    for password in ("", "wrong"):
        assert someone.post(page(run, "delete-useless"), {"password": password}).status_code == 200
    assert Job.objects.count() == 1
    someone.post(page(run, "delete-useless"), {"password": "correct horse"})
    assert names_in(old) == {"good.db", "bare.db", "zero.db", "cut.db", HOSTILE}, "a job does it"
    assert do(newest_job()).outcome == "2 deleted."
    assert names_in(old) == {"good.db", "cut.db", HOSTILE}
    assert AuditEvent.objects.filter(action="delete-foreign", actor_name="staff", outcome="done").count() == 2
    assert "deleted" in page_of(someone.get(FILES)).text
    assert "None of these files is useless" in page_of(someone.get(page(run, "delete-useless"))).text


def test_ids_of_good_files_delete_nothing(somebody: Callable[..., Person], run: TriageRun, old: Path):
    someone = somebody("discard_archive")
    for ids in ([row(run, "good.db").pk], ["none"], ["-1"], ["9" * 40]):
        someone.post(page(run, "delete-useless"), {"password": "correct horse", "file": ids})
    assert Job.objects.count() == 1
    assert len(names_in(old)) == 5


def test_files_of_two_runs_are_done_one_after_the_other(superuser: Person, run: TriageRun, old: Path):
    second = ask_triage([str(old)], actor=ACTOR, trigger="admin")
    assert second.job is not None
    run_job(second.job.pk)
    ids = [row(run, "zero.db").pk, row(second, "zero.db").pk]
    response = superuser.post(FILES, {"action": "delete_chosen", "_selected_action": ids}, follow=True)
    ((level, text),) = page_of(response).messages
    assert (level, text) == ("warning", "Choose files of one triage at a time.")


def test_the_keys_are_never_shown(superuser: Person, run: TriageRun, settings: Settings, tmp_path: Path):
    key: Any = os.urandom(32)
    (tmp_path / "master.key").write_bytes(key)
    settings.BACKUPS = {**settings.BACKUPS, "TRIAGE_KEY_FILES": [tmp_path / "master.key"]}
    shown = superuser.get(START).content.decode()
    assert "1 key file" in shown
    assert str(tmp_path / "master.key") not in shown
