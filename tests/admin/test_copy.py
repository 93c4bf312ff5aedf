"""Copies on the screen: where each archive is kept, what was found there, and the way on."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from backups_app.models import Backup, Copy, Finding, Host
from tests.admin.conftest import Person
from tests.admin.markup import page_of

LIST = "/admin/backups_app/copy/"


def test_the_list_leads_to_backup_and_database(superuser: Person, backup: Backup):
    page = page_of(superuser.get(LIST))
    assert f"/admin/backups_app/backup/{backup.pk}/change/" in page.links
    assert f"/admin/backups_app/database/{backup.database_id}/change/" in page.links
    assert "✓ verified" in page.badges


def test_the_page_shows_what_was_found_there(superuser: Person, backup: Backup):
    copy = backup.copies.get()
    page = page_of(superuser.get(f"{LIST}{copy.pk}/change/"))
    verification = backup.verifications.get()
    assert f"/admin/backups_app/verification/{verification.pk}/change/" in page.links
    assert copy.name in page.text
    assert page.inline_code == []
    change = page_of(superuser.get(f"/admin/backups_app/backup/{backup.pk}/change/"))
    assert f"{LIST}{copy.pk}/change/" in change.links


def test_each_state_is_a_word_with_a_symbol(superuser: Person, every_state: list[Backup]):
    badges = page_of(superuser.get(LIST)).badges
    assert len(badges) == Copy.objects.count()
    assert {"? unreachable", "✗ failed", "? key missing"} <= set(badges)


def test_a_machine_works_is_silent_or_has_stopped(superuser: Person, db_catalog: None):
    now = timezone.now()
    for name, seen, stopped in (("a", 0, None), ("b", 10, None), ("c", 20, 20)):
        Host.objects.create(
            name=name,
            seen_at=now - timedelta(minutes=seen),
            started_at=now - timedelta(hours=1),
            stopped_at=None if stopped is None else now - timedelta(minutes=stopped),
        )
    assert page_of(superuser.get("/admin/backups_app/host/")).badges == ["✓ works", "! silent", "– told to end"]


def test_a_finding_with_a_hostile_name_is_text(superuser: Person, db_catalog: None):
    path = "<script>alert(1)</script>\u202e"
    finding = Finding.objects.create(
        destination="local", code="foreign", message=path, path=path, about="0123", found_at=timezone.now()
    )
    for address in ("/admin/backups_app/finding/", f"/admin/backups_app/finding/{finding.pk}/change/"):
        response = superuser.get(address)
        assert "<script>alert" not in response.content.decode()
        assert "! needs attention" in page_of(response).badges
