"""Page digests: what changed is found, all of it and nothing else, and what is kept is kept whole."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups_app.core.archive import ContentDigest
from backups_app.core.errors import CancelledError, InputError, VerificationError
from backups_app.core.pages import (
    DIGEST_BYTES,
    PageRoot,
    PageState,
    Scanned,
    content_digest_of,
    digests_of,
    digests_of_file,
    keep_digests,
    kept_digests,
    scan_pages,
)
from backups_app.core.progress import Watch
from tests.support import names_in

PAGE = 512


def scan(path: Path, target: Path, kept: Path | None = None) -> tuple[Scanned, list[tuple[int, int]]]:
    runs: list[tuple[int, int]] = []
    with kept_digests(kept or target.with_name("nothing")) as found:
        scanned = scan_pages(
            path, target, page_size=PAGE, kept=found, on_run=lambda *run: runs.append(run), watch=Watch()
        )
    return scanned, runs


def state_of(scanned: Scanned, **changed: object) -> PageState:
    facts = {
        "backup": "0123456789ab",
        "archive_sha256": "a" * 64,
        "sha256": scanned.sha256,
        "page_size": scanned.page_size,
        "page_count": scanned.page_count,
        "pages_sha256": scanned.pages_sha256,
    }
    return PageState(**{**facts, **changed})  # type: ignore[arg-type]


def keep(content: bytes, folder: Path) -> Path:
    (folder / "before").write_bytes(content)
    scanned, _ = scan(folder / "before", folder / "before.digests")
    keep_digests(folder / "kept", folder / "before.digests", state_of(scanned))
    (folder / "before.digests").unlink()
    return folder / "kept"


def pages(*numbers: int) -> bytes:
    return b"".join(bytes([number]) * PAGE for number in numbers)


def test_one_pass_gives_the_digests_of_the_file_of_its_content_and_of_each_page(tmp_path: Path):
    content = pages(1, 2, 3)
    (tmp_path / "new").write_bytes(content)
    scanned, runs = scan(tmp_path / "new", tmp_path / "digests")
    digest = ContentDigest()
    digest.update(content)
    digests = b"".join(hashlib.sha256(content[at : at + PAGE]).digest() for at in range(0, len(content), PAGE))
    assert (tmp_path / "digests").read_bytes() == digests == digests_of(content, PAGE)
    assert scanned == Scanned(
        size_bytes=3 * PAGE,
        sha256=hashlib.sha256(content).hexdigest(),
        content_sha256=digest.hexdigest(),
        page_size=PAGE,
        page_count=3,
        pages_sha256=hashlib.sha256(digests).hexdigest(),
        changed_pages=3,
    )
    assert runs == [(1, 3)]
    assert content_digest_of(tmp_path / "new", watch=Watch()) == scanned.content_sha256
    assert (tmp_path / "digests").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("before", "after", "runs"),
    [
        ((1, 2, 3), (1, 2, 3), []),
        ((1, 2, 3), (1, 9, 3), [(2, 1)]),
        ((1, 2, 3, 4, 5), (9, 9, 3, 4, 9), [(1, 2), (5, 1)]),
        ((1, 2), (1, 2, 3, 4), [(3, 2)]),
        ((1, 2, 3, 4), (1, 9), [(2, 1)]),
        ((1, 2, 3, 4), (1, 2), []),
    ],
)
def test_the_pages_that_differ_are_found_as_runs(tmp_path: Path, before: tuple, after: tuple, runs: list):
    kept = keep(pages(*before), tmp_path)
    (tmp_path / "new").write_bytes(pages(*after))
    assert scan(tmp_path / "new", tmp_path / "digests", kept)[1] == runs


@given(
    before=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    after=st.lists(st.integers(0, 3), min_size=1, max_size=12),
)
def test_runs_name_every_page_that_differs_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, before: list[int], after: list[int]
):
    folder = tmp_path_factory.mktemp("runs")
    kept = keep(pages(*before), folder)
    (folder / "new").write_bytes(pages(*after))
    scanned, runs = scan(folder / "new", folder / "digests", kept)
    named = [page for first, count in runs for page in range(first, first + count)]
    differ = [number for number, each in enumerate(after, start=1) if before[number - 1 : number] != [each]]
    assert named == differ
    assert scanned.changed_pages == len(differ)
    assert all(second[0] > first[0] + first[1] for first, second in pairwise(runs))


def test_runs_join_across_the_pieces_that_are_read(tmp_path: Path):
    (tmp_path / "new").write_bytes(bytes((5 << 20) + PAGE))
    assert scan(tmp_path / "new", tmp_path / "digests")[1] == [(1, (5 << 20) // PAGE + 1)]


def test_what_is_kept_is_read_again(tmp_path: Path):
    kept = keep(pages(1, 2), tmp_path)
    with kept_digests(kept) as found:
        assert found is not None
        assert found.state.page_count == 2
        assert found.read(9) == digests_of(pages(1, 2), PAGE)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert names_in(tmp_path) == {"before", "kept"}


def test_new_digests_take_the_place_of_old_ones_also_after_a_crash(tmp_path: Path):
    kept = keep(pages(1, 2), tmp_path)
    kept.with_name("kept.draft").write_bytes(b"of a process that died")
    keep(pages(3), tmp_path)
    with kept_digests(kept) as found:
        assert found is not None
        assert found.state.page_count == 1
    assert names_in(tmp_path) == {"before", "kept"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content.replace(b'"format":1', b'"format":2'),
        lambda content: content.replace(b'"page_size":512', b'"page_size":513'),
        lambda content: content.replace(b'"page_count":2', b'"page_count":"2"'),
        lambda content: content.replace(b'"backup"', b'"bakcup"'),
        lambda content: b"[]\n" + content,
        lambda content: b"\xff" * 8192,
    ],
)
def test_what_is_kept_and_cannot_be_used_counts_as_none(tmp_path: Path, damage):
    kept = keep(pages(1, 2), tmp_path)
    kept.write_bytes(damage(kept.read_bytes()))
    with kept_digests(kept) as found:
        assert found is None


def test_a_link_or_a_folder_in_place_of_kept_digests_counts_as_none(tmp_path: Path):
    kept = keep(pages(1, 2), tmp_path)
    (tmp_path / "link").symlink_to(kept)
    for path in (tmp_path / "link", tmp_path, tmp_path / "missing"):
        with kept_digests(path) as found:
            assert found is None


@pytest.mark.parametrize("at", [-1, -DIGEST_BYTES * 3, -DIGEST_BYTES * 4])
def test_a_kept_digest_that_rotted_is_noticed_before_it_is_believed(tmp_path: Path, at: int):
    kept = keep(pages(1, 2, 3, 4), tmp_path)
    content = bytearray(kept.read_bytes())
    content[at] ^= 1
    kept.write_bytes(content)
    (tmp_path / "new").write_bytes(pages(1))
    with pytest.raises(VerificationError, match="kept page digests are damaged"):
        scan(tmp_path / "new", tmp_path / "digests", kept)
    assert not (tmp_path / "digests").exists()


@pytest.mark.parametrize(
    ("content", "page_size"), [(b"", PAGE), (b"x" * 513, PAGE), (bytes(600), 600), (bytes(512), 0)]
)
def test_what_is_no_file_of_whole_pages_is_refused(tmp_path: Path, content: bytes, page_size: int):
    (tmp_path / "new").write_bytes(content)
    with pytest.raises(InputError):
        scan_pages(tmp_path / "new", tmp_path / "digests", page_size=page_size, watch=Watch())
    assert not (tmp_path / "digests").exists()


def test_a_cancelled_scan_leaves_nothing(tmp_path: Path):
    (tmp_path / "new").write_bytes(pages(1, 2))
    with pytest.raises(CancelledError):
        scan_pages(tmp_path / "new", tmp_path / "digests", page_size=PAGE, watch=Watch(is_cancelled=lambda: True))
    assert names_in(tmp_path) == {"new"}


def test_a_root_follows_the_pages_that_are_put(tmp_path: Path):
    (tmp_path / "before").write_bytes(pages(1, 2, 3))
    with PageRoot(tmp_path) as root:
        root.fill(digests_of_file(tmp_path / "before", page_size=PAGE, watch=Watch()))
        assert root.hexdigest() == hashlib.sha256(digests_of(pages(1, 2, 3), PAGE)).hexdigest()
        root.put(2, digests_of(pages(8, 9), PAGE))
        root.put(4, digests_of(pages(7), PAGE))
        assert root.hexdigest() == hashlib.sha256(digests_of(pages(1, 8, 9, 7), PAGE)).hexdigest()
        root.resize(1)
        assert root.hexdigest() == hashlib.sha256(digests_of(pages(1), PAGE)).hexdigest()
    assert names_in(tmp_path) == {"before"}
