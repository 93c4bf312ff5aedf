"""Rows of databases under care."""

from __future__ import annotations

import pytest
from django.db import IntegrityError

from backups_app.models import Database

pytestmark = pytest.mark.django_db(databases=["default", "catalog"])


def test_each_database_gets_an_identity_of_its_own():
    first = Database.objects.create(name="a", path="/a")
    second = Database.objects.create(name="b", path="/b")
    assert len(first.identity) == 32
    assert first.identity != second.identity


@pytest.mark.parametrize(
    "facts",
    [
        {"name": "", "path": "/x"},
        {"name": "x", "path": ""},
        {"name": "taken", "path": "/x"},
        {"name": "x", "path": "/x", "alias": "taken"},
        {"name": "x", "path": "/x", "identity": "taken"},
        {"name": "x", "path": "/x", "freshness_hours": -1},
    ],
)
def test_the_catalogue_refuses(facts: dict[str, object]):
    Database.objects.create(name="taken", path="/taken", alias="taken", identity="taken")
    with pytest.raises(IntegrityError):
        Database.objects.create(**facts)


def test_many_added_files_have_no_alias():
    Database.objects.create(name="a", path="/a")
    Database.objects.create(name="b", path="/b")
    assert Database.objects.filter(alias="").count() == 2


def test_it_is_called_by_its_name():
    assert str(Database(name="shop")) == "shop"
