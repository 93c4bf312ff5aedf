"""A database and its folders: made in one go, inspected and restored together, by hand too."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backups_app.core import manifest as manifests
from backups_app.core.age import X25519Identity
from backups_app.core.archive import MEDIA_SUFFIX, SUFFIX, media_beside
from backups_app.core.create import CreatedArchive, CreateOptions, create_archive
from backups_app.core.errors import CancelledError, NotFoundError
from backups_app.core.media.index import NAME
from backups_app.core.progress import Watch
from backups_app.core.verify import failures
from tests.core.media.packed import left_in, tree_of
from tests.core.test_main import core
from tests.core.test_manifest import KEY
from tests.support import build_shop, content_of, manifest_of, names_in, needs_tool, rows_of


@dataclass(frozen=True)
class Both:
    """A store with an archive of the shop and of its folders."""

    store: Path
    archive: Path
    media: Path
    created: CreatedArchive


Make = Callable[..., Both]


@pytest.fixture
def make(media: Path, tmp_path: Path) -> Make:
    """A function that makes a store."""

    def make(identity: X25519Identity | None = None) -> Both:
        shop = build_shop(tmp_path / "site" / "shop.db")
        store = tmp_path / "store"
        scratch = tmp_path / "scratch"
        store.mkdir()
        scratch.mkdir()
        recipients = [identity.recipient] if identity else []
        options = CreateOptions(media=[media], recipients=recipients)
        created = create_archive(shop, scratch, options=options, watch=Watch())
        suffix = ".age" if identity else ""
        archive = store / f"shop{SUFFIX}{suffix}"
        assert created.media is not None
        created.archive.path.rename(archive)
        created.media.stream.path.rename(store / f"shop{MEDIA_SUFFIX}{suffix}")
        manifest = manifest_of(created.archive, created, name=archive.name, sequence=1, public_key=KEY.text)
        manifest = replace(
            manifest,
            media=created.media.facts(f"shop{MEDIA_SUFFIX}{suffix}"),
            encryption="age" if identity else None,
        )
        (store / f"shop{manifests.SUFFIX}").write_bytes(manifest.to_bytes())
        assert names_in(scratch) == set()
        return Both(store=store, archive=archive, media=store / f"shop{MEDIA_SUFFIX}{suffix}", created=created)

    return make


def test_the_names_belong_together():
    assert media_beside("a/2026/a-1.sqlite3.zst") == "a/2026/a-1.media.tar.zst"
    assert media_beside("a/2026/a-1.sqlite3.zst.age") == "a/2026/a-1.media.tar.zst.age"


def test_the_folders_are_read_after_the_snapshot(make: Make):
    created = make().created
    assert created.media is not None
    assert created.snapshot.taken_at <= created.media.read_from <= created.media.read_until
    assert not failures(created.checks)
    assert created.checks[-1].name == "media reading"


def test_a_file_that_a_row_of_the_snapshot_refers_to_is_in_the_archive(media: Path, tmp_path: Path):
    """What is written while the snapshot is taken is in the archive; only what is deleted meanwhile may be missing."""
    shop = build_shop(tmp_path / "site" / "shop.db")
    phases: list[str] = []

    def on_progress(phase: str, *_: int) -> None:
        if not phases:
            (media / "uploaded while the database is copied").write_bytes(b"1")
        phases.append(phase)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    created = create_archive(shop, scratch, options=CreateOptions(media=[media]), watch=Watch(on_progress=on_progress))
    assert created.media is not None
    assert created.media.counts.files == 8
    seen = list(dict.fromkeys(phases))
    assert seen.index("media") == 1
    assert seen[-1] == "compress"


def test_a_missing_folder_or_a_cancel_leaves_neither_archive(media: Path, tmp_path: Path):
    shop = build_shop(tmp_path / "site" / "shop.db")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(NotFoundError):
        create_archive(shop, scratch, options=CreateOptions(media=[tmp_path / "missing"]), watch=Watch())
    assert names_in(scratch) == set()
    phases: list[str] = []
    watch = Watch(on_progress=lambda phase, *_: phases.append(phase), is_cancelled=lambda: "compress" in phases)
    with pytest.raises(CancelledError):
        create_archive(shop, scratch, options=CreateOptions(media=[media]), watch=watch)
    assert "media" in phases
    assert names_in(scratch) == set()


def test_one_command_restores_both(make: Make, media: Path, tmp_path: Path):
    both = make()
    target = tmp_path / "out"
    target.mkdir()
    finished = core("restore", both.archive, "--to", target / "new.db", "--media-to", target / "media")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert content_of(target / "new.db") == content_of(media.parent / "shop.db")
    assert tree_of(target / "media" / "media") == tree_of(media)
    assert names_in(target) == {"new.db", "media"}
    assert "media     7 files" in finished.stdout
    assert "ok        media files" in finished.stdout


def test_the_database_comes_back_alone_too(make: Make, tmp_path: Path):
    both = make()
    both.media.unlink()
    finished = core("restore", both.archive, "--to", tmp_path / "new.db")
    assert finished.returncode == 0
    assert rows_of(tmp_path / "new.db") == {"product": 3, "sale": 4}


def test_an_encrypted_pair_comes_back_with_its_identity(make: Make, media: Path, tmp_path: Path):
    identity = X25519Identity.generate()
    both = make(identity)
    key = tmp_path / "key.txt"
    key.write_text(identity.secret_text())
    arguments = ("restore", both.archive, "--to", tmp_path / "new.db", "--media-to", tmp_path / "new")
    locked = core(*arguments)
    assert locked.returncode == 5
    assert not (tmp_path / "new.db").exists()
    assert not (tmp_path / "new").exists()
    assert core(*arguments, "--identity", key).returncode == 0
    assert tree_of(tmp_path / "new" / "media") == tree_of(media)


def test_the_stock_tools_restore_an_encrypted_pair(make: Make, media: Path, tmp_path: Path):
    identity = X25519Identity.generate()
    both = make(identity)
    key, target = tmp_path / "key.txt", tmp_path / "stock"
    key.write_text(identity.secret_text())
    target.mkdir()
    age, zstd, tar = needs_tool("age"), needs_tool("zstd"), needs_tool("tar")
    pipe = f"set -o pipefail; {age} -d -i {key} {both.media} | {zstd} -d | {tar} -x -C {target}"
    subprocess.run(["bash", "-c", pipe], check=True)
    assert names_in(target) == {"media", NAME}
    assert tree_of(target / "media") == tree_of(media)


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("which", ["archive", "media"])
def test_damage_to_either_leaves_neither(make: Make, tmp_path: Path, which: str):
    both = make()
    damaged(getattr(both, which))
    target = tmp_path / "out"
    target.mkdir()
    finished = core("restore", both.archive, "--to", target / "new.db", "--media-to", target / "media")
    assert finished.returncode == 3
    assert ("media" in finished.stderr) == (which == "media")
    assert names_in(target) == set()


def test_inspect_reads_both_and_names_what_is_wrong(make: Make, tmp_path: Path):
    both = make()
    fine = core("inspect", both.archive, "--json")
    document = json.loads(fine.stdout)
    assert fine.returncode == 0
    assert document["media"]["files"] == document["manifest"]["media"]["files"] == 7
    assert "media files" in [check["name"] for check in document["checks"]]
    damaged(both.media)
    wrong = core("inspect", both.archive)
    assert wrong.returncode == 3
    assert "FAILED    media stored bytes" in wrong.stdout
    assert "ok        stored bytes" in wrong.stdout
    both.media.unlink()
    missing = core("inspect", both.archive)
    assert missing.returncode == 3
    assert f"there is no file {both.media.name}" in missing.stdout


def test_without_a_manifest_both_come_back_with_a_warning(make: Make, media: Path, tmp_path: Path):
    both = make()
    (both.store / f"shop{manifests.SUFFIX}").unlink()
    assert core("inspect", both.archive).returncode == 0
    finished = core("restore", both.archive, "--to", tmp_path / "new.db", "--media-to", tmp_path / "new")
    assert finished.returncode == 0
    assert "Warning: there is no manifest" in finished.stderr
    assert tree_of(tmp_path / "new" / "media") == tree_of(media)
    assert left_in(tmp_path) == []


def test_a_backup_without_folders_says_so(make: Make, tmp_path: Path):
    both = make()
    content = (both.store / f"shop{manifests.SUFFIX}").read_bytes()
    plain = replace(manifests.Manifest.from_bytes(content), media=None)
    (both.store / f"shop{manifests.SUFFIX}").write_bytes(plain.to_bytes())
    finished = core("restore", both.archive, "--to", tmp_path / "new.db", "--media-to", tmp_path / "new")
    assert finished.returncode == 2
    assert "holds no folders of media" in finished.stderr
    assert not (tmp_path / "new.db").exists()
    assert json.loads(core("inspect", both.archive, "--json").stdout)["media"] is None


def test_one_name_for_both_is_refused(make: Make, tmp_path: Path):
    archive, target = make().archive, tmp_path / "new"
    for folder in (target, tmp_path / "new-wal"):
        assert core("restore", archive, "--to", target, "--media-to", folder).returncode == 2
        assert not target.exists()
        assert not folder.exists()
