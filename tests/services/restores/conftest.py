"""People, a backup that differs from the live shop, and runs outside of the test's transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from backups_app.models import Backup, Database, Restore
from backups_app.services.audit import Actor
from backups_app.services.restores import approve_restore, request_restore, run_restore
from backups_app.services.restores import run as run_module
from tests.support import connected

ANNA, BEN, CARL = Actor(id="1", name="anna"), Actor(id="2", name="ben"), Actor(id="3", name="carl")


@pytest.fixture
def outside_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test itself runs in a transaction that is rolled back, which a restore would refuse."""
    monkeypatch.setattr(run_module, "connections", {"default": SimpleNamespace(in_atomic_block=False)})


@pytest.fixture
def backup(shop: Database, shop_file: Path, make_backup: Callable[..., Backup]) -> Backup:
    """A backup with 3 products and 4 sales; since then a product came and the sales went."""
    made = make_backup(shop)
    assert made.state == Backup.State.VERIFIED
    with connected(shop_file) as connection:
        connection.execute("INSERT INTO product (name) VALUES ('newer')")
        connection.execute("DELETE FROM sale")
    return made


@pytest.fixture
def requested(backup: Backup) -> Restore:
    """Anna has asked for the backup."""
    return request_restore(backup, backup.database, reason="the sales are gone", actor=ANNA)


@pytest.fixture
def approved(requested: Restore) -> Restore:
    """Ben has approved."""
    return approve_restore(requested, actor=BEN)


@pytest.fixture
def done(approved: Restore, outside_transactions: None) -> Restore:
    """The restore has run."""
    restore = run_restore(approved, actor=BEN)
    assert restore.state == Restore.State.SUCCEEDED, restore.outcome
    return restore


@pytest.fixture
def restored(outside_transactions: None) -> Callable[..., Restore]:
    """A function that asks for, approves and runs a restore."""

    def act(backup: Backup, database: Database | None = None, *, overrides: Mapping[str, str] | None = None) -> Restore:
        target = database or backup.database
        restore = request_restore(backup, target, reason="a test", actor=ANNA, overrides=overrides)
        return run_restore(approve_restore(restore, actor=BEN), actor=BEN)

    return act
