"""Settings are read when they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django.fixtures import Settings

from backups_app import conf


def test_a_setting_has_its_default(settings: Settings):
    settings.BACKUPS = {}
    assert {name: conf.get(name) for name in conf.DEFAULTS} == conf.DEFAULTS


def test_without_the_dict_the_defaults_hold(settings: Settings):
    del settings.BACKUPS
    assert conf.get("FRESHNESS_HOURS") == 26
    assert conf.roots() == []


def test_a_change_is_seen_at_once(settings: Settings):
    settings.BACKUPS = {"FRESHNESS_HOURS": 1}
    assert conf.get("FRESHNESS_HOURS") == 1
    settings.BACKUPS = {"FRESHNESS_HOURS": 2}
    assert conf.get("FRESHNESS_HOURS") == 2


def test_a_setting_that_does_not_exist_is_our_own_mistake():
    with pytest.raises(KeyError):
        conf.get("FRESHNES_HOURS")


@pytest.mark.parametrize("given", [None, [], "HOME=/x", 5])
def test_settings_that_are_no_dict_are_refused(settings: Settings, given: object):
    settings.BACKUPS = given
    with pytest.raises(ImproperlyConfigured, match="must be a dict"):
        conf.get("HOME")


def test_the_setting_goes_before_the_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("BACKUPS_HOME", str(tmp_path / "environment"))
    settings.BACKUPS = {"HOME": tmp_path / "setting"}
    assert conf.home() == tmp_path / "setting"
    settings.BACKUPS = {}
    assert conf.home() == tmp_path / "environment"


def test_the_last_resort_is_a_folder_beside_manage_py(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("BACKUPS_HOME", raising=False)
    settings.BACKUPS = {}
    assert conf.home() == settings.BASE_DIR / "var"


def test_without_any_place_the_cure_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("BACKUPS_HOME", raising=False)
    settings.BACKUPS = {}
    del settings.BASE_DIR
    with pytest.raises(ImproperlyConfigured, match=r"BACKUPS\['HOME'\]"):
        conf.home()


def test_home_is_absolute_and_expanded(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings.BACKUPS = {"HOME": "~/backups"}
    assert conf.home() == tmp_path / "backups"
    monkeypatch.chdir(tmp_path)
    settings.BACKUPS = {"HOME": "relative"}
    assert conf.home() == tmp_path / "relative"


def test_the_folders_lie_in_the_home(home: Path):
    folders = (conf.archives_folder(), conf.scratch_folder(), conf.state_folder())
    assert folders == (home / "archives", home / "scratch", home / "state")
    assert not home.exists(), "asking creates nothing"


def test_roots_have_their_links_resolved(settings: Settings, tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    settings.BACKUPS = {"ROOTS": [tmp_path / "link", str(tmp_path / "real" / "..")]}
    assert conf.roots() == [tmp_path.resolve() / "real", tmp_path.resolve()]
