"""Chains of archives: each link is proven, and one that is missing or replaced is named."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backups_app.core import manifest as manifests
from backups_app.core.__main__ import main
from backups_app.core.age import X25519Identity
from backups_app.core.archive import DELTA_SUFFIX, SUFFIX, Keys, stem_of
from backups_app.core.errors import BackupError, KeyMissingError, NotFoundError, UnreachableError, VerificationError
from backups_app.core.extract import extract_file, inspect_file
from backups_app.core.links import require_linked
from backups_app.core.progress import Watch
from backups_app.core.verify import Check, failures, reason_of, unpack, verify_full, verify_quick
from tests.deltas import Chain, build_pages, insert
from tests.support import names_in

LENGTH = 4


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return chain_in(tmp_path)


def chain_in(tmp_path: Path, **options: object) -> Chain:
    live = build_pages(tmp_path / "live.db", rows=150)
    chain = Chain(folder=tmp_path / "store", **options)  # type: ignore[arg-type]
    chain.folder.mkdir()
    for _ in range(LENGTH):
        chain.add(live)
        with closing(sqlite3.connect(live, isolation_level=None)) as connection:
            insert(connection, 3)
    assert [manifest.delta.position if manifest.delta else 0 for manifest in chain.manifests] == [0, 1, 2, 3]
    return chain


def unpacked(chain: Chain, number: int, target: Path) -> list[Check]:
    link = chain.link(number)
    return unpack(link.open_stored, link.manifest, target, keys=link.keys, below=chain.below(number), watch=Watch())


def rows_of(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM note").fetchone()[0])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_names_of_deltas_and_full_archives_have_one_stem():
    for suffix in (SUFFIX, DELTA_SUFFIX, f"{SUFFIX}.age", f"{DELTA_SUFFIX}.age"):
        assert stem_of(f"shop/2026/shop-1{suffix}") == "shop/2026/shop-1"


def test_every_link_is_checked_on_the_way(chain: Chain, tmp_path: Path):
    checks = unpacked(chain, LENGTH, tmp_path / "out.db")
    assert failures(checks) == []
    first, second, third, _ = (manifest.id for manifest in chain.manifests)
    assert [check.name for check in checks] == [
        f"stored bytes of backup {first}",
        f"content digest of backup {first}",
        *(f"{what} of backup {each}" for each in (second, third) for what in ("stored bytes", "delta digest", "pages")),
        "stored bytes",
        "delta digest",
        "pages",
        "content digest",
    ]
    assert rows_of(tmp_path / "out.db") == 150 + 3 * (LENGTH - 1)


@pytest.mark.parametrize("number", range(1, LENGTH + 1))
def test_damage_of_any_link_fails_those_above_it_and_not_those_below(chain: Chain, tmp_path: Path, number: int):
    flip(chain.path(number))
    for each in range(1, LENGTH + 1):
        target = tmp_path / f"{each}.db"
        checks = unpacked(chain, each, target)
        quick = verify_quick(
            chain.link(each).open_stored, chain.manifests[each - 1], below=chain.below(each), watch=Watch()
        )
        assert bool(failures(checks)) == bool(failures(quick)) == (each >= number)
        if each > number:
            assert chain.manifests[number - 1].id in reason_of(checks)
            assert chain.manifests[number - 1].id in reason_of(quick)


@pytest.mark.parametrize("number", range(1, LENGTH))
def test_a_missing_link_is_unreachable_and_named(chain: Chain, tmp_path: Path, number: int):
    chain.path(number).unlink()
    link = chain.link(LENGTH)

    def refuse() -> None:
        raise UnreachableError("It is not there.")

    below = [
        replace(each, open_stored=refuse) if each.manifest.id == chain.manifests[number - 1].id else each  # type: ignore[arg-type]
        for each in chain.below(LENGTH)
    ]
    with pytest.raises(UnreachableError, match=f"builds on backup {chain.manifests[number - 1].id}"):
        verify_quick(link.open_stored, link.manifest, below=below, watch=Watch())
    with pytest.raises(UnreachableError):
        unpack(link.open_stored, link.manifest, tmp_path / "out.db", below=below, watch=Watch())


ALTERED: list[Callable[[Chain], list]] = [
    lambda chain: [],
    lambda chain: chain.below(LENGTH)[:-1],
    lambda chain: chain.below(LENGTH)[1:],
    lambda chain: [*chain.below(LENGTH), chain.link(LENGTH)],
    lambda chain: list(reversed(chain.below(LENGTH))),
    lambda chain: [chain.link(1), chain.link(1), chain.link(3)],
]


@pytest.mark.parametrize("altered", ALTERED)
def test_another_chain_is_refused_before_anything_is_read(chain: Chain, tmp_path: Path, altered):
    link = chain.link(LENGTH)
    with pytest.raises(VerificationError):
        unpack(link.open_stored, link.manifest, tmp_path / "out.db", below=altered(chain), watch=Watch())
    assert not (tmp_path / "out.db").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"base_sha256": "0" * 64},
        {"base_archive_sha256": "0" * 64},
        {"base_name": "another.sqlite3.zst"},
        {"position": 2},
        {"links_sha256": "0" * 64},
        {"page_size": 8192 * 16},
    ],
)
def test_a_manifest_that_names_another_base_is_refused(chain: Chain, changed: dict):
    manifest = chain.manifests[-1]
    assert manifest.delta is not None
    require_linked(manifest, chain.below(LENGTH))
    with pytest.raises(VerificationError):
        require_linked(replace(manifest, delta=replace(manifest.delta, **changed)), chain.below(LENGTH))


def test_a_root_that_is_another_one_fails_at_its_link(chain: Chain, tmp_path: Path):
    second = chain.manifests[1]
    assert second.delta is not None
    chain.manifests[1] = replace(second, delta=replace(second.delta, pages_sha256="0" * 64))
    checks = unpacked(chain, LENGTH, tmp_path / "out.db")
    assert [check.name for check in failures(checks)] == [f"pages of backup {second.id}"]


def test_a_full_verification_counts_the_rows_of_the_last_link(chain: Chain, tmp_path: Path):
    link = chain.link(LENGTH)
    checks = verify_full(
        link.open_stored,
        link.manifest,
        required_tables=("note",),
        scratch=tmp_path,
        below=chain.below(LENGTH),
        watch=Watch(),
    )
    assert failures(checks) == []
    assert "census" in {check.name for check in checks}
    assert "verify.sqlite3" not in names_in(tmp_path)


def test_a_locked_chain_is_locked_and_not_damaged(tmp_path: Path):
    identity = X25519Identity.generate()
    chain = chain_in(tmp_path, recipients=[identity.recipient])
    with pytest.raises(KeyMissingError):
        unpacked(chain, LENGTH, tmp_path / "out.db")
    chain.keys = Keys(identities=[identity])
    (tmp_path / "out.db").unlink()
    assert failures(unpacked(chain, LENGTH, tmp_path / "out.db")) == []


# Without a catalogue


@pytest.mark.parametrize("number", range(1, LENGTH + 1))
def test_an_archive_file_is_restored_with_those_that_it_builds_on(chain: Chain, tmp_path: Path, number: int):
    target = tmp_path / "out.db"
    assert main(["restore", str(chain.path(number)), "--to", str(target)]) == 0
    assert rows_of(target) == 150 + 3 * (number - 1)


def test_the_manifest_itself_may_be_given(chain: Chain, tmp_path: Path):
    manifest = chain.folder / (stem_of(chain.manifests[1].archive_name) + manifests.SUFFIX)
    found = extract_file(manifest, tmp_path / "out.db", watch=Watch())
    assert found.sha256 == chain.manifests[1].sha256
    assert main(["inspect", str(manifest)]) == 0


def test_a_backup_that_shares_an_archive_is_restored_by_its_manifest(chain: Chain, tmp_path: Path):
    shared = replace(chain.manifests[1], id="shared000000")
    (chain.folder / "shop-0009.manifest.json").write_bytes(shared.to_bytes())
    for name in ("shop-0009.manifest.json", "shop-0009.sqlite3.delta.zst"):
        target = tmp_path / f"{name}.db"
        extract_file(chain.folder / name, target, watch=Watch())
        assert rows_of(target) == 153


def test_a_chain_is_found_in_the_tree_of_its_destination(chain: Chain, tmp_path: Path):
    """Archives lie in a folder per year: the base may be in another one."""
    old, new = tmp_path / "tree" / "shop" / "2025", tmp_path / "tree" / "shop" / "2026"
    old.mkdir(parents=True)
    new.mkdir()
    names = {}
    for number, manifest in enumerate(chain.manifests, start=1):
        folder = old if number < 3 else new
        names[manifest.archive_name] = f"shop/{folder.name}/{manifest.archive_name}"
        delta = manifest.delta and replace(manifest.delta, base_name=names[manifest.delta.base_name])
        moved = replace(manifest, archive_name=names[manifest.archive_name], delta=delta)
        shutil.copy(chain.path(number), folder)
        (folder / (stem_of(manifest.archive_name) + manifests.SUFFIX)).write_bytes(moved.to_bytes())
    target = tmp_path / "out.db"
    extract_file(new / chain.manifests[-1].archive_name, target, watch=Watch())
    assert rows_of(target) == 159


@pytest.mark.parametrize("what", ["archive", "manifest"])
@pytest.mark.parametrize("number", range(1, LENGTH))
def test_a_missing_file_of_a_chain_is_named_and_nothing_is_written(
    chain: Chain, tmp_path: Path, number: int, what: str
):
    path = chain.path(number)
    gone = path if what == "archive" else path.with_name(stem_of(path.name) + manifests.SUFFIX)
    gone.unlink()
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(NotFoundError, match=path.name):
        extract_file(chain.path(LENGTH), out / "new.db", watch=Watch())
    assert main(["restore", str(chain.path(LENGTH)), "--to", str(out / "new.db")]) == 6
    assert names_in(out) == set()


def test_a_delta_without_its_manifest_is_refused_with_what_it_is(chain: Chain, tmp_path: Path):
    chain.path(2).with_name("shop-0002.manifest.json").unlink()
    with pytest.raises(VerificationError, match="only the pages that changed"):
        extract_file(chain.path(2), tmp_path / "new.db", watch=Watch())
    with pytest.raises(VerificationError, match="only the pages that changed"):
        inspect_file(chain.path(2), scratch=tmp_path, watch=Watch())
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize(
    "name", ["../secret.zst", "/etc/passwd", "", ".hidden.zst", "a/../../b.zst", "a\\b.zst", "a\0b"]
)
def test_a_manifest_leads_to_no_file_outside_its_tree(chain: Chain, tmp_path: Path, name: str):
    manifest = chain.manifests[1]
    assert manifest.delta is not None
    altered = replace(manifest, delta=replace(manifest.delta, base_name=name))
    (chain.folder / "shop-0002.manifest.json").write_bytes(altered.to_bytes())
    with pytest.raises(BackupError):
        extract_file(chain.path(2), tmp_path / "new.db", watch=Watch())
    assert not (tmp_path / "new.db").exists()


def test_a_chain_that_bites_its_tail_ends(chain: Chain, tmp_path: Path):
    second, third = chain.manifests[1], chain.manifests[2]
    assert second.delta is not None
    circle = replace(second, delta=replace(second.delta, base_name=third.archive_name))
    (chain.folder / "shop-0002.manifest.json").write_bytes(circle.to_bytes())
    with pytest.raises(VerificationError, match="has no end"):
        extract_file(chain.path(LENGTH), tmp_path / "new.db", watch=Watch())
    assert not (tmp_path / "new.db").exists()
