"""People, and a restore that may run though the test itself is in a transaction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import Permission, User

from backups_app.models import Backup, Database
from backups_app.services.restores import run as run_module
from tests.support import connected


@pytest.fixture
def people(db_catalog: None) -> None:
    """anna, ben and carl may do everything, dora may ask, staff may nothing, gone is not active."""
    for name in ("anna", "ben", "carl"):
        User.objects.create_superuser(name)
    dora = User.objects.create_user("dora", is_staff=True)
    dora.user_permissions.add(Permission.objects.get(codename="request_restore"))
    User.objects.create_user("staff", is_staff=True)
    User.objects.create_superuser("gone", is_active=False)


@pytest.fixture
def changed(
    shop: Database, shop_file: Path, make_backup: Callable[..., Backup], people: None, monkeypatch: pytest.MonkeyPatch
) -> Backup:
    """A backup with 3 products and 4 sales; since then a product came and the sales went."""
    monkeypatch.setattr(run_module, "connections", {"default": SimpleNamespace(in_atomic_block=False)})
    backup = make_backup(shop)
    with connected(shop_file) as connection:
        connection.execute("INSERT INTO product (name) VALUES ('newer')")
        connection.execute("DELETE FROM sale")
    return backup
