"""What leaves this host is encrypted, and for proven keys only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.utils import timezone

from backups_app import destinations
from backups_app.core.errors import RefusedError
from backups_app.destinations import LocalDestination
from backups_app.models import Backup, Database, Recipient
from backups_app.services.keys.registry import sync_recipients
from backups_app.services.keys.safety import require_safe_for
from tests.keys import Key
from tests.support import NOW, bytes_in

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


class RemoteDestination(LocalDestination):
    """A folder that counts as another machine."""

    is_remote = True


@pytest.fixture
def remote(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(destinations._DESTINATIONS, "local", lambda: RemoteDestination(home / "archives"))


def prove_all() -> None:
    Recipient.objects.update(proven_at=timezone.now())


def test_a_folder_of_this_host_takes_everything(home: Path, encrypting: Callable[..., None], key: Key):
    require_safe_for(LocalDestination(home), [], now=NOW)
    encrypting(key)
    require_safe_for(LocalDestination(home), sync_recipients(now=NOW), now=NOW)


def test_a_remote_one_refuses_what_is_not_encrypted(home: Path):
    with pytest.raises(RefusedError, match="not encrypted"):
        require_safe_for(RemoteDestination(home), [], now=NOW)


def test_a_remote_one_refuses_when_any_key_is_not_proven(
    home: Path, encrypting: Callable[..., None], key: Key, other: Key
):
    encrypting(key, other)
    one, two = sync_recipients(now=NOW)
    one.proven_at = NOW
    with pytest.raises(RefusedError, match=two.key_id):
        require_safe_for(RemoteDestination(home), [one, two], now=NOW)
    two.proven_at = NOW
    require_safe_for(RemoteDestination(home), [one, two], now=NOW)


@pytest.mark.usefixtures("remote")
def test_a_backup_to_a_remote_one_fails_before_anything_is_stored(
    shop: Database, make_backup: Callable[..., Backup], encrypting: Callable[..., None], key: Key, home: Path
):
    for _ in range(2):
        backup = make_backup(shop)
        assert (backup.state, backup.failure_code) == ("failed", "refused")
        assert not (home / "archives").exists() or bytes_in(home / "archives") == {}
        encrypting(key)
    prove_all()
    assert make_backup(shop).state == "verified"
