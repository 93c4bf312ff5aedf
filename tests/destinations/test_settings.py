"""Destinations in settings, environment, checks and on the page of a database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django.fixtures import Settings

from backups_app.admin.database import PolicyForm
from backups_app.checks import check_destinations, check_home, check_settings
from backups_app.models import AuditEvent, Database
from backups_app.services.databases import change_policy
from project.s3 import s3_storage
from tests.conftest import ACTOR
from tests.support import PROJECT

NOTHING = dict.fromkeys(("prefix", "endpoint_url", "region", "access_key", "secret_key"), "")


def test_an_alias_that_is_not_there_is_an_error_with_a_fix(home: Path, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": ["local", "attic"]}
    (found,) = check_destinations(None)
    assert found.id == "backups.E060"
    assert "attic" in found.msg
    assert "STORAGES" in str(found.hint)


def test_a_backend_that_cannot_be_imported_is_an_error(
    home: Path, settings: Settings, add_storage: Callable[..., None]
):
    add_storage("odd", {"BACKEND": "no.such.Backend"})
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": ["odd"]}
    (found,) = check_destinations(None)
    assert "cannot be loaded" in found.msg


def test_the_built_in_one_needs_nothing(home: Path):
    assert check_destinations(None) == []


@pytest.mark.parametrize("value", ["local", [], [1], [""], None, {"local": 1}])
def test_a_setting_that_is_no_list_of_names_is_an_error(home: Path, settings: Settings, value: object):
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": value}
    assert [each.id for each in check_settings(None)] == ["backups.E005"]


def test_a_folder_that_a_web_server_hands_out_is_an_error(
    home: Path, settings: Settings, add_storage: Callable[..., None], tmp_path: Path
):
    settings.MEDIA_ROOT = str(tmp_path / "media")
    where = {"location": str(tmp_path / "media" / "backups")}
    add_storage("attic", {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": where})
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": ["attic"]}
    assert [each.id for each in check_home(None)] == ["backups.E007"]


# The environment of the console


def console_settings(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    program = (
        "import json; from project import settings as s; "
        "found = [s.BACKUPS['DESTINATIONS'], s.STORAGES.get('s3', {}).get('OPTIONS')]; "
        "print(json.dumps(found, default=lambda _: None))"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        env={"PATH": "/usr/bin:/bin", "BACKUPS_HOME": str(tmp_path / "home"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_names_a_bucket(tmp_path: Path):
    import json

    (tmp_path / "secret").write_text("very-secret\n")
    done = console_settings(
        tmp_path,
        BACKUPS_S3_BUCKET="b",
        BACKUPS_S3_PREFIX="/site/",
        BACKUPS_S3_ENDPOINT_URL="http://127.0.0.1:9",
        BACKUPS_S3_REGION="eu-central-1",
        BACKUPS_S3_ACCESS_KEY_ID="id",
        BACKUPS_S3_SECRET_ACCESS_KEY_FILE=str(tmp_path / "secret"),
    )
    assert done.returncode == 0, done.stderr
    names, options = json.loads(done.stdout)
    assert names == ["local", "s3"]
    assert (options["bucket_name"], options["location"], options["region_name"]) == ("b", "site", "eu-central-1")
    assert (options["access_key"], options["secret_key"]) == ("id", "very-secret")
    assert options["file_overwrite"] is False


def test_without_a_bucket_there_is_the_folder_alone(tmp_path: Path):
    assert console_settings(tmp_path).stdout == '[["local"], null]\n'


def test_the_environment_may_choose_otherwise(tmp_path: Path):
    assert console_settings(tmp_path, BACKUPS_S3_BUCKET="b", BACKUPS_DESTINATIONS="s3").stdout.startswith('[["s3"], {')


def test_half_a_key_is_an_error():
    with pytest.raises(ImproperlyConfigured, match="both"):
        s3_storage(bucket="b", **{**NOTHING, "access_key": "id"})


# The page of a database


def given(**more: Any) -> dict[str, Any]:
    return {"required_tables": "[]", **more}


def test_a_person_chooses_among_the_destinations_of_the_settings(
    shop: Database, settings: Settings, add_storage: Callable[..., None]
):
    add_storage("odd", {"BACKEND": "django.core.files.storage.InMemoryStorage"})
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": ["local", "odd"]}
    form = PolicyForm(given(destinations=["odd"]), instance=shop)
    assert form.is_valid(), form.errors
    assert form.cleaned_data["destinations"] == ["odd"]
    assert not PolicyForm(given(destinations=["elsewhere"]), instance=shop).is_valid()
    assert PolicyForm(given(), instance=shop).is_valid(), "none: as in the settings"


def test_one_that_is_gone_from_the_settings_can_be_seen_and_taken_away(shop: Database):
    shop.destinations = ["gone"]
    assert "gone" in str(PolicyForm(instance=shop)["destinations"])


def test_the_choice_is_recorded(shop: Database):
    change_policy(shop, required_tables=[], freshness_hours=None, destinations=["odd"], actor=ACTOR)
    assert Database.objects.get(pk=shop.pk).destinations == ["odd"]
    assert "destinations ['odd']" in AuditEvent.objects.get(action="change-policy").detail
