"""The form that asks for a restore."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from backups_app.admin import display
from backups_app.admin.asking import form_opened_at
from backups_app.models import AuditEvent, Backup, Database, Restore
from backups_app.services.databases import add_database
from tests.admin.conftest import Person, backup_row
from tests.admin.markup import Page, page_of
from tests.admin.restores import REQUEST, VIEW, change_prices, somebody, trace
from tests.conftest import ACTOR
from tests.support import build, build_shop, content_of

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


@pytest.fixture
def anna(db_catalog: None) -> Person:
    """Somebody who may ask for restores, and nothing else."""
    return somebody("anna", *REQUEST)


def form_page(backup: Backup) -> str:
    return f"/admin/backups_app/backup/{backup.pk}/restore/"


def send(person: Person, backup: Backup, **fields: Any) -> Any:
    return person.post(form_page(backup), {"database": backup.database_id, "reason": "wrong prices", **fields})


def names_of_fields(response: Any) -> set[str]:
    fields = {each.attributes.get("name", "") for each in page_of(response).elements if each.tag in ("input", "select")}
    return fields & {"database", "reason", "is_migrating"} | {each for each in fields if each.startswith("override_")}


# Who may


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    ("rights", "is_superuser", "status"),
    [((), False, 403), (VIEW, False, 403), (("approve_restore",), False, 403), (REQUEST, False, 200), ((), True, 200)],
)
def test_the_form_is_for_those_who_may_request(
    backup: Backup, method: str, rights: tuple[str, ...], is_superuser: bool, status: int
):
    person = somebody("ben", *rights, is_superuser=is_superuser)
    assert getattr(person, method)(form_page(backup)).status_code == status
    assert not Restore.objects.exists()


@pytest.mark.parametrize("method", ["get", "post"])
def test_visitors_are_asked_to_sign_in(person: Callable[..., Person], backup: Backup, method: str):
    response = getattr(person("anonymous"), method)(form_page(backup), {"database": backup.database_id, "reason": "x"})
    assert response.status_code == 302
    assert response["Location"].startswith("/admin/login/")
    assert not Restore.objects.exists()


def test_without_a_csrf_token_nothing_is_filed(backup: Backup):
    assert send(somebody("ben", *REQUEST, enforce_csrf_checks=True), backup).status_code == 403
    assert not Restore.objects.exists()


@pytest.mark.parametrize("backup_id", ["0", "none", "a" * 400, "%00", "..", "%ED%A0%80"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_an_unknown_backup_is_not_found(anna: Person, backup_id: str, method: str):
    assert getattr(anna, method)(f"/admin/backups_app/backup/{backup_id}/restore/").status_code == 404


def test_the_backup_offers_the_form_to_those_who_may(anna: Person, backup: Backup):
    address = f"/admin/backups_app/backup/{backup.pk}/change/"
    assert form_page(backup) in page_of(anna.get(address)).links
    assert form_page(backup) not in page_of(somebody("ben", *VIEW).get(address)).links


@pytest.mark.parametrize("state", ["running", "failed", "cancelled"])
def test_a_backup_without_an_archive_is_not_offered_and_not_taken(anna: Person, shop: Database, state: str):
    made = backup_row(shop, state=state, verdict="")
    made.save()
    assert form_page(made) not in page_of(anna.get(f"/admin/backups_app/backup/{made.pk}/change/")).links
    response = send(anna, made)
    assert response.status_code == 200
    assert "has no stored copy" in page_of(response).errors
    assert not Restore.objects.exists()


def test_of_two_clicks_on_the_same_form_one_files_and_other_words_are_another_request(anna: Person, backup: Backup):
    opened = form_opened_at()
    for reason in ("wrong prices", " wrong prices ", "the second tab"):
        send(anna, backup, reason=reason, opened=opened)
    assert sorted(Restore.objects.values_list("reason", flat=True)) == ["the second tab", "wrong prices"]


@pytest.mark.parametrize(
    "opened", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-13-01T00:00:00Z", "x"]
)
def test_a_forged_moment_of_opening_counts_as_none(anna: Person, backup: Backup, opened: str):
    send(anna, backup, opened=opened)
    assert Restore.objects.count() == 1


# The form


def test_the_form_asks_and_changes_nothing(anna: Person, backup: Backup):
    before = trace()
    response = anna.get(form_page(backup))
    assert response.status_code == 200
    assert names_of_fields(response) == {"database", "reason", "is_migrating"}
    page = page_of(response)
    assert page.errors == ""
    assert backup.pk in page.text
    assert "Preview and request" in page.buttons
    assert page.inline_code == []
    assert trace() == before


def test_the_database_of_the_backup_is_chosen_and_others_are_offered(anna: Person, backup: Backup, tmp_path: Path):
    other = add_database("annex", build_shop(tmp_path / "annex.sqlite3"), actor=ACTOR)
    gone = add_database("gone", build_shop(tmp_path / "gone.sqlite3"), actor=ACTOR)
    Database.objects.filter(pk=gone.pk).update(is_under_care=False)
    options = {
        each.text.strip(): each.attributes for each in page_of(anna.get(form_page(backup))).all("option") if each.text
    }
    assert "selected" in options["shop"]
    assert options["annex"]["value"] == str(other.pk)
    assert "gone" not in options


def test_a_request_is_filed_with_its_preview_and_nothing_live_changes(anna: Person, backup: Backup, shop_file: Path):
    change_prices(shop_file)
    before = content_of(shop_file)
    response = send(anna, backup, is_migrating="on")
    restore = Restore.objects.get()
    assert (response.status_code, response["Location"]) == (302, f"/admin/backups_app/restore/{restore.pk}/change/")
    assert restore.state == "requested"
    assert (restore.reason, restore.is_migrating, restore.overrides) == ("wrong prices", True, {})
    assert (restore.requested_by_name, restore.approved_by_name) == ("anna", "")
    assert restore.preview is not None
    assert content_of(shop_file) == before
    page = page_of(anna.get(response["Location"]))
    assert page.messages == [("success", "The request was filed. It runs when it is approved.")]
    event = AuditEvent.objects.get(action="request-restore")
    assert (event.actor_name, event.outcome, event.subject) == ("anna", "done", restore.pk)


@pytest.mark.parametrize("reason", ["", "   ", "\t\n"])
def test_without_a_reason_the_form_asks_again(anna: Person, backup: Backup, reason: str):
    response = send(anna, backup, reason=reason)
    assert response.status_code == 200
    assert page_of(response).errors.strip() == "This field is required."
    assert names_of_fields(response) == {"database", "reason", "is_migrating"}
    assert not Restore.objects.exists()


def test_an_empty_form_asks_again(anna: Person, backup: Backup):
    page = page_of(anna.post(form_page(backup), {}))
    assert page.errors.count("This field is required.") == 2
    assert not Restore.objects.exists()


@pytest.mark.parametrize("database", ["0", "x", "-1", "999999"])
def test_an_unknown_database_is_refused_by_the_form(anna: Person, backup: Backup, database: str):
    assert "valid choice" in page_of(send(anna, backup, database=database)).errors
    assert not Restore.objects.exists()


def test_a_hostile_reason_is_shown_again_inert(anna: Person, backup: Backup):
    text = '"><script>alert(1)</script>'
    response = send(anna, backup, reason=text, database="0")
    assert "<script>alert" not in response.content.decode()
    (field,) = [each for each in page_of(response).all("input") if each.attributes.get("name") == "reason"]
    assert field.attributes["value"] == text


# Guards


@pytest.fixture
def schema_only(tmp_path: Path, home: Path, make_backup: Callable[..., Backup]) -> Backup:
    """A real backup that holds no row."""
    path = build(tmp_path / "bare.sqlite3", "PRAGMA journal_mode=wal; CREATE TABLE sale (id INTEGER PRIMARY KEY);")
    return make_backup(add_database("bare", path, actor=ACTOR))


def test_an_objection_is_shown_with_the_field_that_overrides_it(anna: Person, schema_only: Backup):
    response = send(anna, schema_only)
    assert response.status_code == 200
    assert names_of_fields(response) == {"database", "reason", "is_migrating", "override_empty"}
    page = page_of(response)
    assert "The restore was refused." in page.errors
    assert "The backup holds a schema without data." in page.errors
    assert [each.attributes["value"] for each in page.all("input") if each.attributes.get("name") == "reason"] == [
        "wrong prices"
    ]
    assert page.inline_code == []
    assert not Restore.objects.exists()
    assert AuditEvent.objects.get(action="request-restore").outcome == "refused"


def test_a_reason_for_the_override_lets_it_pass_and_is_recorded(anna: Person, schema_only: Backup):
    send(anna, schema_only)
    response = send(anna, schema_only, override_empty="the branch starts over")
    assert response.status_code == 302
    assert Restore.objects.get().overrides == {"empty": "the branch starts over"}
    page = page_of(anna.get(response["Location"]))
    (blocker,) = page.all("div", "walsafe-blocker")
    assert " ".join(blocker.text.split()) == (
        "empty: the backup holds a schema without data. Overridden: the branch starts over"
    )
    event = AuditEvent.objects.filter(action="request-restore", outcome="done").get()
    assert "overrides empty: the branch starts over" in event.detail


@pytest.mark.parametrize("reason", ["", "   "])
def test_an_override_without_a_reason_does_not_count(anna: Person, schema_only: Backup, reason: str):
    response = send(anna, schema_only, override_empty=reason)
    assert response.status_code == 200
    assert "override_empty" in names_of_fields(response)
    assert not Restore.objects.exists()


def test_each_objection_has_its_own_field_and_needs_its_own_reason(anna: Person, schema_only: Backup, shop: Database):
    both = {"override_empty", "override_wrong_database"}
    first = send(anna, schema_only, database=shop.pk)
    assert names_of_fields(first) >= both
    assert "the target is 'shop'" in page_of(first).errors
    half = send(anna, schema_only, database=shop.pk, override_empty="on purpose")
    assert names_of_fields(half) >= both
    assert "holds a schema" not in page_of(half).errors
    assert not Restore.objects.exists()
    send(anna, schema_only, database=shop.pk, override_empty="on purpose", override_wrong_database="a twin")
    assert Restore.objects.get().overrides == {"empty": "on purpose", "wrong_database": "a twin"}
    assert Restore.objects.get().database == shop


def test_an_override_that_nothing_objects_to_is_not_recorded(anna: Person, backup: Backup):
    send(anna, backup, override_empty="just in case", override_nonsense="x")
    assert Restore.objects.get().overrides == {}


def test_guards_that_do_not_object_are_not_offered(anna: Person, schema_only: Backup):
    offered = names_of_fields(send(anna, schema_only))
    assert {each for each in offered if each.startswith("override_")} == {"override_empty"}


def test_a_backup_without_a_superuser_is_refused_for_the_database_of_the_accounts(
    anna: Person, tmp_path: Path, make_backup: Callable[..., Backup]
):
    columns = "id INTEGER PRIMARY KEY, username TEXT, password TEXT, is_active BOOL, is_superuser BOOL"
    path = build(
        tmp_path / "people.sqlite3",
        f"PRAGMA journal_mode=wal; CREATE TABLE {User._meta.db_table} ({columns});"
        f"INSERT INTO {User._meta.db_table} VALUES (1, 'zoe', 'pbkdf2$x', 1, 0);",
    )
    made = make_backup(add_database("people", path, actor=ACTOR))
    response = send(anna, made)
    assert "override_lock_out" in names_of_fields(response)
    assert "no active superuser" in page_of(response).errors
    assert not Restore.objects.exists()


# Archives that cannot be used


def test_an_altered_archive_is_refused_whatever_is_overridden(
    anna: Person, backup: Backup, archive_of: Callable[[Backup], Path], shop_file: Path
):
    content, before = bytearray(archive_of(backup).read_bytes()), content_of(shop_file)
    content[-1] ^= 1
    archive_of(backup).chmod(0o600)
    archive_of(backup).write_bytes(content)
    response = send(anna, backup, override_unverified="I know better")
    assert response.status_code == 200
    assert "cannot be trusted" in page_of(response).errors
    assert not Restore.objects.exists()
    assert content_of(shop_file) == before


def test_a_missing_archive_is_a_message(anna: Person, backup: Backup, archive_of: Callable[[Backup], Path]):
    archive_of(backup).unlink()
    assert page_of(send(anna, backup)).errors
    assert not Restore.objects.exists()


def test_a_refusal_leaves_nothing_in_scratch(anna: Person, schema_only: Backup, home: Path):
    send(anna, schema_only)
    assert list((home / "scratch").iterdir()) == []


# The preview


def facts_on(page: Page) -> dict[str, str]:
    """The list of facts of a page."""
    values = [" ".join(each.text.split()) for each in page.all("dd")]
    return dict(zip([each.text for each in page.all("dt")], values, strict=True))


def test_the_preview_shows_what_is_lost_and_added(anna: Person, backup: Backup, shop_file: Path):
    change_prices(shop_file)
    build(shop_file, "CREATE TABLE coupon (id); DROP INDEX sale_product;")
    page = page_of(anna.get(send(anna, backup)["Location"]))
    cells = page.cells()
    assert cells[cells.index("product") :][:5] == ["product", "5", "3", "0", "2"]
    assert cells[cells.index("sale") :][:5] == ["sale", "3", "4", "1", "0"]
    assert cells[cells.index("coupon") :][:5] == ["coupon", "0", "–", "0", "0"]
    assert [each.text for each in page.all("td", "walsafe-lost")] == ["2"]
    facts = dict(
        zip(
            [each.text for each in page.all("dt")],
            [" ".join(each.text.split()) for each in page.all("dd")],
            strict=True,
        )
    )
    assert facts["Only in the live database"] == "table coupon"
    assert facts["Only in the backup"] == "index sale_product"
    assert facts["Disk space"].endswith("free")
    assert facts["Writers wait about"] == "0.05 s"
    assert "Administrators afterwards" not in facts, "it is no database of accounts"
    assert "Report" not in page.text, "nothing was done yet"


def test_the_preview_names_administrators_and_sessions(anna: Person, backup: Backup):
    send(anna, backup)
    restore = Restore.objects.get()
    assert restore.preview is not None
    restore.preview |= {"superusers": ["zoe", "<i>yan</i>"], "sessions_ending": 12345}
    restore.save()
    page = page_of(anna.get(f"/admin/backups_app/restore/{restore.pk}/change/"))
    facts = facts_on(page)
    assert facts["Administrators afterwards"] == "zoe, <i>yan</i>"
    assert facts["Sessions that end"] == "12,345"
    assert not page.all("i")


def test_a_missing_live_database_is_said(anna: Person, backup: Backup, shop_file: Path):
    shop_file.unlink()
    page = page_of(anna.get(send(anna, backup)["Location"]))
    assert "The live database cannot be read" in page.text


HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '"><img src=x onerror=alert(1)>',
    "right to left": "\u202etxt.exe",
    "template": "{{ request.user.password }}%(x)s%s",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_names_are_inert_in_the_preview(
    tmp_path: Path, make_backup: Callable[..., Backup], kind: str, anna: Person
):
    text = HOSTILE[kind]
    name = '"' + text.replace('"', '""') + '"'
    path = build(tmp_path / "hostile.sqlite3", f"CREATE TABLE {name} (id); INSERT INTO {name} VALUES (1), (2);")
    made = make_backup(add_database(text, path, actor=ACTOR))
    build(path, f"DELETE FROM {name}; ALTER TABLE {name} ADD COLUMN more; CREATE INDEX i ON {name} (id);")
    address = send(anna, made, reason=text)["Location"]
    for page_address in (address, "/admin/backups_app/restore/", address.replace("change", "reject"), form_page(made)):
        source = anna.get(page_address).content.decode()
        assert "<script>alert" not in source
        assert "<img src=x" not in source
        assert text in page_of(anna.get(page_address)).text, page_address
        assert page_of(anna.get(page_address)).inline_code == []
    isolated = [each.text for each in page_of(anna.get(address.replace("change", "reject"))).all("bdi")]
    assert isolated.count(text) >= 2, "a name that turns the text around turns only itself"
    assert display.sendable(f"table {text}") in [each.text for each in page_of(anna.get(address)).all("bdi")]


def test_half_characters_do_not_break_the_preview(
    anna: Person, tmp_path: Path, make_backup: Callable[..., Backup], home: Path
):
    path = build(
        tmp_path / "half.sqlite3",
        """
        PRAGMA journal_mode = wal;
        CREATE TABLE plain (id INTEGER PRIMARY KEY);
        INSERT INTO plain VALUES (1);
        CREATE TABLE odd (id INTEGER PRIMARY KEY);
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET name = CAST(x'6fff64' AS TEXT), tbl_name = CAST(x'6fff64' AS TEXT),
            sql = 'CREATE TABLE "' || CAST(x'6fff64' AS TEXT) || '" (id INTEGER PRIMARY KEY)' WHERE name = 'odd';
        """,
    )
    made = make_backup(add_database("half", path, actor=ACTOR))
    build(path, "CREATE TABLE new (id)")
    response = send(anna, made)
    assert response.status_code == 302, page_of(response).errors
    restore = Restore.objects.get()
    restore.preview = json.loads(json.dumps(restore.preview).replace("table new", "table \\udcff"))
    restore.save()
    page = page_of(anna.get(response["Location"]))
    assert "table \\udcff" in page.text
