"""Deltas: ``apply(delta(a, b), a) == b`` for all databases, and nothing else than a delta is ever applied."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import resource
import sqlite3
import subprocess
import tarfile
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backups_app.core.age import X25519Identity, identity_file
from backups_app.core.archive import Keys, compress, decompress
from backups_app.core.beside import open_archive_file
from backups_app.core.create import CreatedArchive, CreateOptions, Unchanged, create_unless_unchanged
from backups_app.core.delta import DeltaReader, IndexWriter, Patch, PatchedFile, delta_bytes, write_delta
from backups_app.core.errors import DiskFullError, VerificationError
from backups_app.core.pages import KeptDigests, PageRoot, PageState, digests_of_file, scan_pages
from backups_app.core.progress import Watch
from backups_app.core.verify import failures, reason_of, unpack
from tests.deltas import Chain, build_pages, change, insert
from tests.support import PROJECT, names_in, needs_tool

PAGE = 512


def numbered(pages: list[int]) -> bytes:
    return b"".join(bytes([number]) * PAGE for number in pages)


def delta_between(folder: Path, before: bytes, after: bytes) -> tuple[Patch, bytes]:
    """The tar of a delta, made as the engine makes it, and what it must say."""
    (folder / "a").write_bytes(before)
    (folder / "b").write_bytes(after)
    kept = scan_pages(folder / "a", folder / "a.digests", page_size=PAGE, watch=Watch())
    state = PageState(
        backup="",
        archive_sha256="",
        sha256=kept.sha256,
        page_size=PAGE,
        page_count=kept.page_count,
        pages_sha256=kept.pages_sha256,
    )
    with open(folder / "a.digests", "rb") as stream, IndexWriter(folder / "index") as index:
        index.begin(base_sha256=kept.sha256, page_size=PAGE)
        found = scan_pages(
            folder / "b",
            folder / "b.digests",
            page_size=PAGE,
            kept=KeptDigests(state=state, stream=stream),
            on_run=index.run,
            watch=Watch(),
        )
        index.finish(size_bytes=found.size_bytes, sha256=found.sha256)
    patch = Patch(
        base_sha256=kept.sha256,
        sha256=found.sha256,
        size_bytes=found.size_bytes,
        page_size=PAGE,
        pages=found.changed_pages,
    )
    written = write_delta(folder / "b", folder / "index", folder / "delta", patch=patch, watch=Watch())
    tar = b"".join(decompress(iter([(folder / "delta").read_bytes()]), limit_bytes=1 << 30))
    assert len(tar) == written.packed_bytes == delta_bytes((folder / "index").stat().st_size, patch)
    return patch, tar


def read(patch: Patch, tar: bytes, folder: Path, *, step: int = 100_000) -> tuple[str, list[tuple[int, bytes]]]:
    given: list[tuple[int, bytes]] = []
    with DeltaReader(patch, folder=folder, on_pages=lambda *each: given.append(each)) as reader:
        for at in range(0, len(tar), step):
            reader.feed(tar[at : at + step])
        reader.finish()
    return reader.problem, given


@settings(deadline=None)
@given(
    before=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    after=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    step=st.integers(1, 3000),
)
@example(before=[1], after=[1, 2, 3], step=1)  # growth
@example(before=[1, 2, 3], after=[1], step=511)  # only shorter: a delta without a page
def test_a_delta_put_into_its_base_gives_the_new_database(
    tmp_path_factory: pytest.TempPathFactory, before: list[int], after: list[int], step: int
):
    folder = tmp_path_factory.mktemp("delta")
    patch, tar = delta_between(folder, numbered(before), numbered(after))
    assert read(patch, tar, folder, step=step)[0] == ""
    target = folder / "target"
    target.write_bytes(numbered(before))
    with PageRoot(folder) as root:
        root.fill(digests_of_file(target, page_size=PAGE, watch=Watch()))
        found, problem, digest = PatchedFile(target, root).apply(
            partial(open_archive_file, folder / "delta"),
            patch,
            packed_bytes=len(tar),
            total_bytes=0,
            watch=Watch(),
            keys=None,
        )
    assert (found.damage, problem) == (None, "")
    assert target.read_bytes() == numbered(after)
    assert digest == scan_pages(folder / "b", folder / "check", page_size=PAGE, watch=Watch()).pages_sha256


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(
        st.sampled_from(["insert", "update", "delete", "vacuum", "index", "nothing"]), min_size=1, max_size=5
    )
)
def test_every_backup_of_a_chain_gives_back_its_own_snapshot(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
):
    folder = tmp_path_factory.mktemp("chain")
    live = build_pages(folder / "live.db", rows=120)
    chain = Chain(folder=folder)
    chain.add(live)
    work = {
        "insert": lambda: change(live, "INSERT INTO note (body) SELECT randomblob(2000) FROM note LIMIT 9"),
        "update": lambda: change(live, "UPDATE note SET body = randomblob(900) WHERE id % 50 = 3"),
        "delete": lambda: change(live, "DELETE FROM note WHERE id IN (SELECT id FROM note LIMIT 20)"),
        "vacuum": lambda: change(live, "DELETE FROM note WHERE id % 20 = 1", "VACUUM"),
        "index": lambda: change(live, "CREATE INDEX IF NOT EXISTS by_size ON note (length(body))"),
        "nothing": lambda: None,
    }
    for step in steps:
        work[step]()
        chain.add(live)
    for number, manifest in enumerate(chain.manifests, start=1):
        target = folder / f"out-{number}.db"
        checks = unpack(**vars_of(chain, number), target=target, watch=Watch())
        assert failures(checks) == []
        assert rows_of(target) == manifest.census.tables["note"]
    assert rows_of(live) == chain.manifests[-1].census.tables["note"]


def vars_of(chain: Chain, number: int) -> dict:
    link = chain.link(number)
    return {"open_stored": link.open_stored, "manifest": link.manifest, "keys": link.keys, "below": chain.below(number)}


def rows_of(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM note").fetchone()[0])


# What is refused


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        (lambda tar: tar[:-1], "it ends in the middle"),
        (lambda tar: tar[:700], "it ends in the middle"),
        (lambda tar: b"", "it ends in the middle"),
        (lambda tar: tar + b"\0", "it goes on after its end"),
        (lambda tar: tar + bytes(10240), "it goes on after its end"),
        (lambda tar: tar[:-1] + b"x", "it does not end as a tar does"),
        (lambda tar: b"x" + tar[1:], "header"),
        (lambda tar: tar.replace(b"run 2 1", b"run 3 1"), "out of order"),
        (lambda tar: tar.replace(b"run 2 1", b"run 1 1"), "pages"),
        (lambda tar: tar.replace(b"run 2 1", b"run 9 1"), "outside the database"),
        (lambda tar: tar.replace(b"run 2 1", b"run 0 1"), "outside the database"),
        (lambda tar: tar.replace(b"run 2 1", b"run 2 0"), "outside the database"),
        (lambda tar: tar.replace(b"run 2 1", b"run+2 1"), "another database"),
        (lambda tar: tar.replace(b"run 2 1", b"run x 1"), "malformed"),
        (lambda tar: tar.replace(b"run 2 1", b"run 2\t1"), "malformed"),
        (lambda tar: tar.replace(b"page 512", b"page 256"), "another database"),
        (lambda tar: tar.replace(b"size 2048", b"size 4096"), "another database"),
        (lambda tar: tar.replace(b"walsafe-delta 1", b"walsafe-delta 2"), "another database"),
        (lambda tar: tar.replace(b"result ", b"Result "), "another database"),
    ],
)
def test_what_is_not_byte_for_byte_a_delta_of_ours_is_refused(tmp_path: Path, tamper, problem: str):
    patch, tar = delta_between(tmp_path, numbered([1, 2, 3, 4]), numbered([1, 9, 3, 8]))
    changed = tamper(tar)
    assert changed != tar
    if problem == "pages":  # it is well-formed, and names other pages: the root tells, not the reader
        assert read(patch, changed, tmp_path)[1][0][0] == 1
        return
    found, given = read(patch, changed, tmp_path)
    assert problem in found
    assert len(given) <= 2


def hostile(index: str, *, pages: bytes = b"", names: tuple[str, str] = ("index", "pages")) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in zip(names, (index.encode(), pages), strict=True):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue().rstrip(b"\0") + bytes(1024)


BASE, RESULT = "a" * 64, "b" * 64
HEAD, TAIL = f"walsafe-delta 1\nbase {BASE}\npage 512\n", f"size 4096\nresult {RESULT}\n"


@pytest.mark.parametrize(
    "runs",
    [
        "run 1 1\nrun 1 1\n",
        "run 2 2\nrun 3 1\n",
        "run 5 1\nrun 2 1\n",
        "run 1 1\nrun 2 1\n",  # next to each other: one run would be written
        "run 7 3\n",
        "run 1 99999999999999999999999999\n",
        "run -1 1\n",
        "run 01 1\n",
        "run 1 1 \n",
        "run 1\n",
        "run 1 1 1\n",
        "run " + "9" * 5000 + " 1\n",
        "ruin 1 1\n",
        "\n",
    ],
)
def test_runs_that_overlap_touch_or_lie_outside_are_refused(tmp_path: Path, runs: str):
    patch = Patch(base_sha256=BASE, sha256=RESULT, size_bytes=4096, page_size=512, pages=2)
    problem, given = read(patch, hostile(HEAD + runs + TAIL, pages=bytes(1024)), tmp_path)
    assert problem != ""
    assert given == []


def test_the_hostile_deltas_of_these_tests_would_be_right_but_for_their_runs(tmp_path: Path):
    patch = Patch(base_sha256=BASE, sha256=RESULT, size_bytes=4096, page_size=512, pages=2)
    tar = hostile(HEAD + "run 2 1\nrun 8 1\n" + TAIL, pages=b"x" * 512 + b"y" * 512)
    tar += bytes(-len(tar) % 512)
    problem, given = read(patch, tar[: delta_bytes(len(HEAD + TAIL) + 16, patch)], tmp_path)
    assert (problem, [first for first, _ in given]) == ("", [2, 8])


@pytest.mark.parametrize(
    ("index", "names"),
    [
        (HEAD + TAIL, ("index", "pages")),  # too few pages
        (HEAD + "run 1 3\n" + TAIL, ("index", "pages")),
        (HEAD + "run 1 2\n" + TAIL, ("../index", "pages")),
        (HEAD + "run 1 2\n" + TAIL, ("index", "/pages")),
        (HEAD + "run 1 2\n", ("index", "pages")),
        (TAIL + HEAD, ("index", "pages")),
        (HEAD + "run 1 2\n" + TAIL + "run 4 1\n", ("index", "pages")),
        (HEAD + "run 1 2\n" + TAIL.replace("\n", "\r\n"), ("index", "pages")),
        (HEAD + "x" * 300_000, ("index", "pages")),
        ("", ("index", "pages")),
    ],
)
def test_an_index_or_a_member_that_is_not_as_it_must_be_is_refused(tmp_path: Path, index: str, names: tuple[str, str]):
    patch = Patch(base_sha256=BASE, sha256=RESULT, size_bytes=4096, page_size=512, pages=2)
    problem, given = read(patch, hostile(index, pages=bytes(1024), names=names), tmp_path)
    assert problem != ""
    assert given == []
    assert names_in(tmp_path) == set()


@settings(deadline=None)
@given(noise=st.binary(max_size=3000), at=st.integers(0, 4000), length=st.integers(0, 40))
def test_noise_in_a_delta_never_writes_outside_the_database(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, length: int
):
    folder = tmp_path_factory.mktemp("noise")
    patch, tar = delta_between(folder, numbered([1, 2, 3, 4]), numbered([1, 9, 3, 8]))
    problem, given = read(patch, tar[:at] + noise + tar[at + length :], folder)
    for first, pages in given:
        assert len(pages) % PAGE == 0
        assert first >= 1
        assert first - 1 + len(pages) // PAGE <= patch.page_count
    assert sum(len(pages) for _, pages in given) <= patch.pages * PAGE or problem


# When there is no delta


def grown(chain: Chain, live: Path, *, rows: int = 5) -> CreatedArchive:
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        insert(connection, rows)
    made = chain.create(live)
    assert isinstance(made, CreatedArchive)
    return made


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return build_pages(tmp_path / "live.db")


@pytest.fixture
def chain(tmp_path: Path, live: Path) -> Chain:
    chain = Chain(folder=tmp_path / "store")
    chain.folder.mkdir()
    chain.add(live)
    return chain


def test_a_small_change_is_stored_as_its_pages_only(chain: Chain, live: Path):
    full_bytes = chain.manifests[0].archive_bytes
    made = grown(chain, live)
    assert made.delta is not None
    assert made.delta.position == 1
    assert made.archive.archive_bytes < full_bytes / 10
    manifest = chain.keep(made)
    assert manifest.delta == made.delta
    assert names_in(chain.scratch) == set()


def test_a_chain_is_no_longer_than_asked_for(chain: Chain, live: Path):
    chain.longest = 2
    positions = []
    for _ in range(5):
        made = grown(chain, live)
        chain.keep(made)
        positions.append(made.delta.position if made.delta else 0)
    assert positions == [1, 2, 0, 1, 2]


def test_without_a_length_every_archive_is_a_full_one_and_no_digests_are_made(chain: Chain, live: Path):
    chain.longest = 0
    made = grown(chain, live)
    assert (made.delta, made.pages) == (None, None)
    assert names_in(chain.scratch) == {made.archive.path.name}


def test_a_chain_ends_when_its_deltas_are_as_large_as_its_full_archive(chain: Chain, live: Path):
    sums, positions = 0, []
    for _ in range(12):
        made = grown(chain, live, rows=80)
        positions.append(made.delta.position if made.delta else 0)
        sums = sums + made.archive.archive_bytes if made.delta else 0
        chain.keep(made)
        assert chain.previous is not None
        assert sums <= chain.previous.full_bytes
    assert 0 in positions
    assert max(positions) < 12


def test_a_delta_of_more_than_half_is_a_full_archive(chain: Chain, live: Path):
    change(live, "UPDATE note SET body = randomblob(1500)")
    made = chain.create(live)
    assert isinstance(made, CreatedArchive)
    assert made.delta is None
    assert names_in(chain.scratch) == {made.archive.path.name, "pages.digests"}


def test_another_page_size_makes_a_full_archive(chain: Chain, live: Path):
    change(live, "PRAGMA journal_mode=DELETE", "PRAGMA page_size=8192", "VACUUM")
    made = chain.create(live)
    assert isinstance(made, CreatedArchive)
    assert made.snapshot.census.page_size == 8192
    assert made.delta is None
    chain.keep(made)
    assert grown(chain, live).delta is not None


@pytest.mark.parametrize("loss", ["missing", "damaged", "rotten", "of another archive"])
def test_without_the_page_digests_of_the_last_archive_a_full_one_is_made(chain: Chain, live: Path, loss: str):
    content = bytearray(chain.kept.read_bytes())
    if loss == "missing":
        chain.kept.unlink()
    elif loss == "damaged":
        chain.kept.write_bytes(content[:-5])
    elif loss == "rotten":
        content[-5] ^= 1
        chain.kept.write_bytes(content)
    else:
        assert chain.previous is not None
        chain.previous = replace(chain.previous, archive_sha256="f" * 64)
    made = grown(chain, live)
    assert made.delta is None
    assert names_in(chain.scratch) == {made.archive.path.name, "pages.digests"}
    chain.keep(made)
    assert grown(chain, live).delta is not None


def test_a_backup_that_fails_its_checks_is_stored_whole(chain: Chain, live: Path):
    change(live, "DELETE FROM note WHERE id > 390", "CREATE TABLE empty_one (id INTEGER)")
    options = CreateOptions(
        previous=chain.previous, longest_chain=9, kept_digests=chain.kept, required_tables=("empty_one",)
    )
    made = create_unless_unchanged(live, chain.scratch, options=options, watch=Watch())
    assert isinstance(made, CreatedArchive)
    assert "empty_one" in reason_of(made.checks)
    assert made.delta is None
    assert made.archive.packed_sha256 == made.archive.sha256


# Reuse


@pytest.mark.parametrize("longest", [0, 9])
def test_an_unchanged_database_makes_no_archive(chain: Chain, live: Path, longest: int):
    chain.longest, chain.is_reusing = longest, True
    change(live, "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode=DELETE")  # header bytes, no content
    made = chain.create(live)
    assert isinstance(made, Unchanged)
    assert made.previous == chain.previous
    assert failures(made.checks) == []
    assert names_in(chain.scratch) <= {"pages.digests"}


def test_a_change_of_one_value_is_no_unchanged_database(chain: Chain, live: Path):
    chain.is_reusing, chain.longest = True, 0
    change(live, "UPDATE note SET body = zeroblob(length(body)) WHERE id = 7")
    assert isinstance(chain.create(live), CreatedArchive)


def test_an_unchanged_database_that_fails_its_checks_gets_an_archive(chain: Chain, live: Path):
    options = CreateOptions(previous=chain.previous, is_reusing=True, required_tables=("missing",))
    made = create_unless_unchanged(live, chain.scratch, options=options, watch=Watch())
    assert isinstance(made, CreatedArchive)
    assert made.archive.sha256 == chain.manifests[0].sha256


# The proof of what is stored


def test_a_stored_delta_is_proven_without_its_base(chain: Chain, live: Path):
    made = grown(chain, live)
    chain.path(1).unlink()
    checks = chain.prove(made, made.archive.path)
    assert [(check.name, check.ok) for check in checks] == [
        ("stored bytes", True),
        ("content digest", True),
        ("pages", True),
    ]


def test_a_host_that_knows_recipients_only_makes_deltas_and_proves_them(tmp_path: Path, live: Path):
    identity = X25519Identity.generate()
    chain = Chain(folder=tmp_path / "locked", recipients=[identity.recipient])
    chain.folder.mkdir()
    chain.add(live)
    made = grown(chain, live)
    assert made.delta is not None
    manifest = chain.keep(made)  # asserts the proof
    chain.keys = Keys(identities=[identity])
    assert failures(unpack(**vars_of(chain, 2), target=tmp_path / "out.db", watch=Watch())) == []
    assert rows_of(tmp_path / "out.db") == manifest.census.tables["note"]


def test_pages_that_are_not_those_that_changed_are_not_proven(chain: Chain, live: Path):
    """A delta with right digests and wrong pages: only the root can tell."""
    made = grown(chain, live)
    assert made.delta is not None
    forged = replace(made, delta=replace(made.delta, pages_sha256="0" * 64))
    checks = chain.prove(forged, made.archive.path)
    assert [check.name for check in failures(checks)] == ["pages"]


def test_a_stored_delta_that_differs_is_not_proven(chain: Chain, live: Path):
    made = grown(chain, live)
    content = bytearray(made.archive.path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = made.archive.path.with_name("damaged")
    damaged.write_bytes(content)
    assert "stored bytes" in reason_of(chain.prove(made, damaged))


def test_a_delta_is_not_proven_without_the_page_digests_that_it_was_made_with(chain: Chain, live: Path):
    made = grown(chain, live)
    chain.kept.unlink()
    with pytest.raises(VerificationError, match="page digests of the backup before are gone"):
        chain.prove(made, made.archive.path)


def test_a_file_that_is_no_tar_inside_is_no_delta(chain: Chain, live: Path, tmp_path: Path):
    made = grown(chain, live)
    noise = random.Random(1).randbytes(made.archive.packed_bytes)
    content = b"".join(compress(iter([noise]), level=1, workers=0, size_bytes=len(noise)))
    (tmp_path / "noise").write_bytes(content)
    assert failures(chain.prove(made, tmp_path / "noise"))


def test_memory_does_not_grow_with_the_runs_of_a_delta(tmp_path: Path):
    page_count = 400_000
    runs = "".join(f"run {number} 1\n" for number in range(1, page_count, 2))
    patch = Patch(base_sha256=BASE, sha256=RESULT, size_bytes=512 * page_count, page_size=512, pages=page_count // 2)
    index = f"{HEAD}{runs}size {patch.size_bytes}\nresult {RESULT}\n".encode()
    member = tarfile.TarInfo("index")
    member.size, member.mode = len(index), 0o600
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with DeltaReader(patch, folder=tmp_path, on_pages=lambda *_: None) as reader:
        reader.feed(member.tobuf(tarfile.GNU_FORMAT, "ascii", "strict"))
        for at in range(0, len(index), 1 << 20):
            reader.feed(index[at : at + (1 << 20)])
        assert reader.problem == ""
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 8 << 20


def test_a_full_disk_while_a_delta_is_read_is_no_verdict_on_its_store(tmp_path: Path):
    patch = Patch(base_sha256=BASE, sha256=RESULT, size_bytes=512, page_size=512, pages=1)
    index = f"{HEAD}run 1 1\nsize {patch.size_bytes}\nresult {RESULT}\n".encode()
    members = io.BytesIO()
    with tarfile.open(fileobj=members, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in (("index", index), ("pages", bytes(512))):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            tar.addfile(member, io.BytesIO(content))
    with suppress(DiskFullError), DeltaReader(patch, folder=tmp_path, on_pages=lambda *_: None) as reader:
        reader._runs.close()
        reader._runs = open("/dev/full", "r+b")  # noqa: SIM115 - the reader's own; takes no byte, as a full disk
        with pytest.raises(DiskFullError):
            reader.feed(members.getvalue())


# Stock tools

SCRIPT = re.findall(r"```sh\n(.*?)```", (PROJECT / "docs" / "space.md").read_text("utf-8"), re.DOTALL)[0]


def by_stock_tools(chain: Chain, number: int, target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script of the documents in the folder of the archives."""
    for tool in ("sh", "sed", "zstd", "tar", "dd", "truncate", "sha256sum"):
        needs_tool(tool)
    command = ["sh", "-c", SCRIPT, "restore-chain.sh", chain.path(number).name, str(target)]
    return subprocess.run(
        command, cwd=chain.folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_the_script_of_the_documents_restores_every_link(live: Path, tmp_path: Path):
    change(live, "VACUUM")
    chain = Chain(folder=tmp_path / "store")
    chain.folder.mkdir()
    chain.add(live)
    chain.keep(grown(chain, live))
    change(live, "DELETE FROM note WHERE id > 390", "VACUUM")
    made = chain.create(live)
    assert isinstance(made, CreatedArchive)
    assert made.delta is not None
    assert made.snapshot.size_bytes < chain.manifests[0].size_bytes
    chain.keep(made)
    for number in (1, 2, 3):
        done = by_stock_tools(chain, number, tmp_path / f"{number}.db")
        assert (done.returncode, done.stderr) == (0, "")
        assert (
            hashlib.sha256((tmp_path / f"{number}.db").read_bytes()).hexdigest() == chain.manifests[number - 1].sha256
        )
    unpack(**vars_of(chain, 3), target=tmp_path / "ours.db", watch=Watch())
    assert (tmp_path / "3.db").read_bytes() == (tmp_path / "ours.db").read_bytes()


def test_the_script_opens_encrypted_chains_with_age(live: Path, tmp_path: Path):
    needs_tool("age")
    identity = X25519Identity.generate()
    chain = Chain(folder=tmp_path / "store", recipients=[identity.recipient])
    chain.folder.mkdir()
    chain.add(live)
    chain.keep(grown(chain, live))
    key = tmp_path / "key.txt"
    key.write_bytes(identity_file(identity, now=datetime.now(UTC)))
    done = by_stock_tools(chain, 2, tmp_path / "2.db", KEY=str(key))
    assert (done.returncode, done.stderr) == (0, "")
    assert rows_of(tmp_path / "2.db") == 405


def test_the_script_stops_at_a_base_that_is_another_database(live: Path, tmp_path: Path):
    chain = Chain(folder=tmp_path / "store")
    chain.folder.mkdir()
    chain.add(live)
    chain.keep(grown(chain, live))
    other = build_pages(tmp_path / "other.db")
    chain.path(1).unlink()
    subprocess.run(["zstd", "-q", other, "-o", chain.path(1)], check=True)
    assert by_stock_tools(chain, 2, tmp_path / "2.db").returncode != 0
