"""Keys on the screen: evidence, the proof, the recovery kit."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from django.utils import timezone

from backups_app.models import AuditEvent, Backup, Database, Recipient
from backups_app.services.keys.registry import sync_recipients
from tests.admin.conftest import Person
from tests.admin.markup import page_of
from tests.keys import Key, age_decrypt

LIST = "/admin/backups_app/recipient/"
KIT = f"{LIST}kit/"
ARMOR = re.compile(r"-----BEGIN AGE.*-----END AGE ENCRYPTED FILE-----", re.DOTALL)

MakePerson = Callable[..., Person]


@pytest.fixture
def recipient(home: Path, db_catalog: None, encrypting: Callable[..., None], key: Key) -> Recipient:
    encrypting(key)
    (found,) = sync_recipients(now=timezone.now())
    return found


@pytest.fixture
def someone(person: MakePerson) -> MakePerson:
    """A function that makes a person with one more permission."""

    def make(name: str, permission: str) -> Person:
        found = person(name)
        assert found.user is not None
        found.user.user_permissions.add(Permission.objects.get(codename=permission))
        return found

    return make


def test_who_may_not_see_the_list_hears_nothing_of_the_settings_and_changes_no_row(
    person: MakePerson, home: Path, encrypting: Callable[..., None], key: Key
):
    staff = person("staff")
    encrypting(key)
    assert staff.get(LIST).status_code == 403
    assert not Recipient.objects.exists()
    encrypting(AGE_RECIPIENTS="age1x")
    assert staff.get(LIST).status_code == 403
    assert page_of(staff.get("/admin/")).messages == []


def prove_page(recipient: Recipient) -> str:
    return f"{LIST}{recipient.pk}/prove/"


def test_the_list_shows_each_key_with_its_state(superuser: Person, recipient: Recipient):
    page = page_of(superuser.get(LIST))
    assert f"{recipient.key_id}…" in page.text
    assert page.badges == ["✓ in use", "! never proven"]
    Recipient.objects.update(proven_at=timezone.now() - timedelta(days=400))
    assert "! proof too old" in page_of(superuser.get(LIST)).badges
    Recipient.objects.update(proven_at=timezone.now())
    assert "✓ proven" in page_of(superuser.get(LIST)).badges


def test_the_list_follows_the_settings(
    superuser: Person, recipient: Recipient, encrypting: Callable[..., None], other: Key
):
    encrypting(other)
    page = page_of(superuser.get(LIST))
    assert {"✓ in use", "– retired"} <= set(page.badges)
    encrypting(AGE_RECIPIENTS="age1x")
    response = superuser.get(LIST)
    assert response.status_code == 200
    assert page_of(response).messages[0][0] == "error"


def test_the_detail_page_counts_archives(
    superuser: Person, recipient: Recipient, shop: Database, make_backup: Callable[..., Backup]
):
    backup = make_backup(shop)
    page = page_of(superuser.get(f"{LIST}{recipient.pk}/change/"))
    assert recipient.public in page.text
    assert page.inline_code == []
    shown = page_of(superuser.get(f"/admin/backups_app/backup/{backup.pk}/change/")).text
    assert recipient.key_id in shown
    assert "age -d -i" in shown


def test_nothing_can_be_added_changed_or_deleted(superuser: Person, recipient: Recipient):
    for address in (f"{LIST}add/", f"{LIST}{recipient.pk}/delete/"):
        assert superuser.get(address).status_code == 403
    assert superuser.post(f"{LIST}{recipient.pk}/change/", {"public": "age1x"}).status_code == 403


def test_who_may_look_and_who_may_prove(someone: MakePerson, person: MakePerson, recipient: Recipient):
    viewer, keeper = someone("viewer", "view_recipient"), someone("operator", "manage_keys")
    staff, visitor = person("staff"), person("anonymous")
    assert [each.get(LIST).status_code for each in (viewer, staff, visitor)] == [200, 403, 302]
    assert [each.get(KIT).status_code for each in (viewer, keeper, staff, visitor)] == [200, 200, 403, 302]
    page = prove_page(recipient)
    assert [each.get(page).status_code for each in (viewer, keeper, staff, visitor)] == [403, 200, 403, 302]
    for each in (viewer, staff, visitor):
        assert each.post(page).status_code in (302, 403)
        assert each.post(page, {"answer": "x"}).status_code in (302, 403)
    recipient.refresh_from_db()
    assert recipient.challenge_sha256 == ""


def test_a_key_is_proven_on_the_page(superuser: Person, recipient: Recipient, key: Key, tmp_path: Path):
    page = prove_page(recipient)
    assert "age1" in page_of(superuser.get(page)).text
    recipient.refresh_from_db()
    assert recipient.challenge_sha256 == "", "looking changes nothing"
    response = superuser.post(page)
    assert "no-store" in response["Cache-Control"]
    armored = ARMOR.search(response.content.decode())
    assert armored is not None
    (tmp_path / "challenge.age").write_text(armored.group() + "\n")
    word = age_decrypt(key, tmp_path / "challenge.age", tmp_path / "word").read_text()
    wrong = superuser.post(page, {"answer": "nonsense"}, follow=True)
    assert page_of(wrong).messages[0][0] == "error"
    right = superuser.post(page, {"answer": word}, follow=True)
    assert page_of(right).messages[0][0] == "success"
    recipient.refresh_from_db()
    assert recipient.proven_at is not None
    assert recipient.proven_by_name == "superuser"
    assert word.strip() not in repr(list(AuditEvent.objects.values_list()))


def test_an_answer_needs_the_token_of_the_form(person: MakePerson, recipient: Recipient):
    strict = person("superuser", enforce_csrf_checks=True)
    assert strict.post(prove_page(recipient)).status_code == 403


def test_a_key_that_is_not_there_is_not_found(superuser: Person, recipient: Recipient):
    assert superuser.get(f"{LIST}999/prove/").status_code == 404


def test_the_kit_can_be_printed_and_holds_no_secret(
    superuser: Person, recipient: Recipient, key: Key, encrypting: Callable[..., None]
):
    encrypting(key, identity=key.path)
    response = superuser.get(KIT)
    source = response.content.decode()
    assert key.recipient in source
    assert key.secret not in source
    assert page_of(response).inline_code == []
