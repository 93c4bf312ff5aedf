"""The catalogue stays apart."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import router
from django_q.models import Task

from backups_app import models
from backups_app.models import Backup, Database

OURS = [getattr(models, name) for name in models.__all__]


@pytest.mark.parametrize("model", [*OURS, Task])
def test_our_rows_and_those_of_the_queue_live_in_the_catalogue(model: type):
    assert router.db_for_read(model) == "catalog"
    assert router.db_for_write(model) == "catalog"


def test_every_model_of_the_app_is_meant():
    assert set(apps.get_app_config("backups_app").get_models()) == set(OURS)


def test_the_rows_of_the_site_do_not():
    assert router.db_for_read(User) == "default"
    assert router.db_for_write(User) == "default"


@pytest.mark.parametrize("app", ["backups_app", "django_q"])
def test_our_tables_are_made_in_the_catalogue_only(app: str):
    assert router.allow_migrate("catalog", app) is True
    assert router.allow_migrate("default", app) is False
    assert router.allow_migrate("other", app) is False


@pytest.mark.parametrize("app", ["auth", "admin", "sessions", "contenttypes", "shop"])
def test_other_tables_are_never_made_in_the_catalogue(app: str):
    assert router.allow_migrate("catalog", app) is False
    assert router.allow_migrate("default", app) is True


def test_no_relation_crosses():
    assert router.allow_relation(User(), Backup()) is False
    assert router.allow_relation(Backup(), User()) is False
    assert router.allow_relation(Backup(), Database()) is True


@pytest.mark.parametrize("model", OURS)
def test_no_foreign_key_leaves_the_catalogue(model: type):
    for field in model._meta.get_fields():  # type: ignore[attr-defined]
        if field.is_relation:
            assert field.related_model in OURS
