"""Everything below BACKUPS_HOME is for one account, whatever the umask of who calls."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.keys import Key
from tests.site import Site, copy_site
from tests.support import build_shop, connected
from tests.verbs.test_serve import serving


@pytest.fixture(autouse=True)
def wide_open() -> Iterator[None]:
    """The most careless umask, inherited by every process that a test starts."""
    before = os.umask(0)
    yield
    os.umask(before)


def careless(folder: Path) -> dict[str, str]:
    """What lies below a folder and is not for its owner alone."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        mode = path.lstat()
        allowed = 0o700 if stat.S_ISDIR(mode.st_mode) else 0o600
        if not stat.S_ISLNK(mode.st_mode) and stat.S_IMODE(mode.st_mode) & ~allowed:
            found[str(path.relative_to(folder))] = oct(stat.S_IMODE(mode.st_mode))
    return found


@pytest.mark.slow
def test_after_every_verb_all_below_home_is_private(site_template: Path, tmp_path: Path):
    home = tmp_path / "home"
    site = used(copy_site(site_template, home, roots=tmp_path), tmp_path)
    assert careless(home) == {}
    for made in ("challenge.age", "kit.txt", "new.sqlite3", "made.key"):
        assert stat.S_IMODE((tmp_path / made).stat().st_mode) == 0o600, made
    with serving(home) as heard:
        assert careless(home) == {}, "sockets, locks and databases of a running serve"
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=60) == 0
    assert careless(home) == {}
    assert {"archives", "state", "catalog.sqlite3", "site.sqlite3"} <= {each.name for each in home.iterdir()}
    assert site.row(site.asked(site.backup()))["state"] == "requested"


def used(site: Site, folder: Path) -> Site:
    """A site after all that is done to one in a year."""
    for path in [site.console.home, *site.console.home.rglob("*")]:  # the template was made under another umask
        path.chmod(0o700 if path.is_dir() else 0o600)
    key = Key(folder / "key.txt")
    site.console.extra.update(
        BACKUPS_AGE_RECIPIENTS=key.recipient, BACKUPS_AGE_IDENTITY_FILE=str(key.path), BACKUPS_WEBHOOK_URLS=""
    )
    console = site.console
    build_shop(folder / "shop.sqlite3")
    (folder / "old").mkdir()
    shutil.copy(build_shop(folder / "copy.sqlite3", journal_mode="delete"), folder / "old" / "app.db")
    console.ok("add-database", "shop", folder / "shop.sqlite3")
    first = site.backup()
    console.ok("create", "--all")
    console.ok("verify", "--all", "--level", "drill")
    console.ok("restore", first, "--to", folder / "new.sqlite3")
    with connected(site.path) as connection:
        connection.execute("INSERT INTO events (what) VALUES ('later')")
    restore = site.asked(first)
    assert site.approve(restore).code == 0
    console.ok("undo", restore, "--user", "anna", "--yes")
    console.ok("triage", folder / "old", "--import")
    console.ok("prove", "--out", folder / "challenge.age")
    console.ok("keygen", "--out", folder / "made.key")
    console.ok("keys", "--kit", folder / "kit.txt")
    console.ok("create", "default", "--enqueue")
    console.ok("rekey", first, "--identity", key.path)
    console.ok("hold", site.backup())
    console.ok("rescan")
    console.run("prune", "--dry-run")
    console.ok("tick")
    assert console.run("status").code in (0, 8)
    return site


def test_a_home_that_is_made_anew_is_private(tmp_path: Path):
    from tests.console import Console

    console = Console(tmp_path / "home")
    console.run("create", "--all")
    assert console.catalog.exists()
    assert careless(console.home) == {}


def test_the_catalogue_of_a_site_that_embeds_the_app_is_private(tmp_path: Path):
    """Its settings set no umask."""
    from tests.security.embedded import run_embedded

    run_embedded(tmp_path, "create", "--all")
    assert (tmp_path / "var" / "catalog.sqlite3").exists()
    assert careless(tmp_path / "var") == {}
