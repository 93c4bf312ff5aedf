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


# Who is told


@pytest.fixture
def nowhere(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """No receiver is named anywhere."""
    settings.BACKUPS, settings.ADMINS = {}, []
    for name in ("WEBHOOK_URLS", "HEARTBEAT_URL"):
        monkeypatch.delenv(f"BACKUPS_{name}", raising=False)
        monkeypatch.delenv(f"BACKUPS_{name}_FILE", raising=False)


def receivers() -> tuple[list[str], list[str], str]:
    return conf.notify_emails(), conf.webhook_urls(), conf.heartbeat_url()


def test_without_settings_nobody_is_told(nowhere: None):
    assert receivers() == ([], [], "")


@pytest.mark.parametrize("admins", [[("anna", "a@x.example"), ("ben", "b@x.example")], ["a@x.example", "b@x.example"]])
def test_mail_goes_to_the_admins_of_the_site_unless_others_are_named(nowhere: None, settings: Settings, admins: object):
    settings.ADMINS = admins
    assert conf.notify_emails() == ["a@x.example", "b@x.example"]
    settings.BACKUPS = {"NOTIFY_EMAILS": ["c@x.example"]}
    assert conf.notify_emails() == ["c@x.example"]
    settings.BACKUPS = {"NOTIFY_EMAILS": []}
    assert conf.notify_emails() == []


def test_secret_addresses_come_from_the_setting_the_environment_or_a_file(
    nowhere: None, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "urls").write_text("http://file.example/1,\n  http://file.example/2\n")
    (tmp_path / "url").write_text("http://file.example/pulse\n")
    monkeypatch.setenv("BACKUPS_WEBHOOK_URLS_FILE", str(tmp_path / "urls"))
    monkeypatch.setenv("BACKUPS_HEARTBEAT_URL_FILE", str(tmp_path / "url"))
    assert receivers() == ([], ["http://file.example/1", "http://file.example/2"], "http://file.example/pulse")
    monkeypatch.setenv("BACKUPS_WEBHOOK_URLS", "http://env.example/1 http://env.example/2, http://env.example/3")
    monkeypatch.setenv("BACKUPS_HEARTBEAT_URL", "http://env.example/pulse")
    assert conf.webhook_urls() == [f"http://env.example/{number}" for number in (1, 2, 3)]
    assert conf.heartbeat_url() == "http://env.example/pulse"
    settings.BACKUPS = {"WEBHOOK_URLS": ["http://set.example"], "HEARTBEAT_URL": "http://set.example/pulse"}
    assert receivers() == ([], ["http://set.example"], "http://set.example/pulse")


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_file_that_cannot_be_read_is_named_by_its_variable(
    nowhere: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
):
    if content is not None:
        (tmp_path / "urls").write_bytes(content)
    monkeypatch.setenv("BACKUPS_WEBHOOK_URLS_FILE", str(tmp_path / "urls"))
    with pytest.raises(ImproperlyConfigured, match="BACKUPS_WEBHOOK_URLS_FILE cannot be read"):
        conf.webhook_urls()


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("https://x.example/a?b=c", True),
        ("http://anna:pass@[::1]:8000/", True),
        ("HTTP://X.EXAMPLE", True),
        ("ftp://x.example", False),
        ("x.example/a", False),
        ("http://", False),
        ("http://x.example:0", False),
        ("http://x.example:70000", False),
        ("http://x.example/a b", False),
        ("http://x.example/\r\nHost: other", False),
        ("http://bücher.example", False),
        ("http://[::1", False),
        (None, False),
        (5, False),
    ],
)
def test_what_a_web_address_is(address: object, is_one: bool):
    assert conf.is_web_address(address) is is_one
