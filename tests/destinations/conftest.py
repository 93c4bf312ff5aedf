"""Destinations of every kind, made from settings as a site makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import storages
from pytest_django.fixtures import Settings

from backups_app.destinations import Destination, get_destination
from backups_app.models import Recipient
from tests.destinations.bucket import new_bucket, served, storage_of
from tests.destinations.stores import Down

MEMORY = "django.core.files.storage.InMemoryStorage"


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The address of an S3 server."""
    with served() as url:
        yield url


@pytest.fixture
def bucket(s3_url: str) -> str:
    """A fresh bucket there."""
    return new_bucket(s3_url)


@pytest.fixture
def add_storage(settings: Settings) -> Callable[[str, dict[str, Any]], None]:
    """A function that adds an alias to STORAGES."""

    def add(name: str, storage: dict[str, Any]) -> None:
        settings.STORAGES = {**settings.STORAGES, name: storage}

    return add


@pytest.fixture
def store_at(settings: Settings, home: Path, add_storage: Callable[..., None]) -> Callable[..., Any]:
    """A function that makes ``local`` and an alias with this backend the destinations; returns the storage."""

    def chosen(name: str, backend: str | dict[str, Any], *, alone: bool = False) -> Any:
        add_storage(name, {"BACKEND": backend} if isinstance(backend, str) else backend)
        settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": [name] if alone else ["local", name]}
        return storages[name]

    return chosen


@pytest.fixture
def proven_key(home: Path, db_catalog: None, encrypting: Callable[..., None], key: Any) -> None:
    """Backups are encrypted for a key that somebody has shown to hold, whose identity is here."""
    from django.utils import timezone

    from backups_app.services.keys.registry import sync_recipients

    encrypting(key, identity=key.path)
    sync_recipients(now=timezone.now())
    Recipient.objects.update(proven_at=timezone.now())


@pytest.fixture
def down() -> Iterator[type[Down]]:
    """The store that answers nothing until ``is_down`` is False."""
    Down.is_down = True
    yield Down
    Down.is_down = True


@pytest.fixture(params=["local", "folder", "memory", "s3"])
def destination(
    request: pytest.FixtureRequest, home: Path, tmp_path: Path, add_storage: Callable[..., None]
) -> Destination:
    """One of each kind."""
    if request.param == "folder":
        location = str(tmp_path / "attic")
        add_storage(
            "folder",
            {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": location}},
        )
    elif request.param == "memory":
        add_storage("memory", {"BACKEND": MEMORY})
    elif request.param == "s3":
        url = request.getfixturevalue("s3_url")
        add_storage("s3", storage_of(url, request.getfixturevalue("bucket")))
    return get_destination(request.param)
