"""Folders into an archive: everything in them, as it was met, and a word about the rest."""

from __future__ import annotations

import hashlib
import os
import socket
import sqlite3
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest

from backups_app.core.errors import CancelledError, DiskFullError, InputError, NotFoundError
from backups_app.core.media import pack as packing
from backups_app.core.media import tar
from backups_app.core.media.index import NAME
from backups_app.core.media.pack import pack_folders
from backups_app.core.progress import Watch
from tests.core.media.packed import Packed, tree_of
from tests.support import build_shop, connected, leave_behind, mounted_tmpfs, names_in, needs_tool, run_python

Make = Callable[..., Packed]


def folder_of(tmp_path: Path, name: str = "media", **files: bytes) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    for each, content in files.items():
        (folder / each).write_bytes(content)
    return folder


def test_everything_comes_back_as_it_was(media: Path, packed: Packed, tmp_path: Path):
    before = tree_of(media)
    packed.extract(tmp_path / "new")
    assert tree_of(tmp_path / "new" / "media") == before
    assert len(before) == 11
    assert names_in(tmp_path / "new") == {"media"}
    assert packed.made.problems == packed.made.remarks == ()


def test_the_counts_are_those_of_the_folder(media: Path, packed: Packed):
    tree = tree_of(media).values()
    facts = packed.facts
    assert facts.files == sum(each[0] == "file" for each in tree) == 7
    assert facts.folders == sum(each[0] == "folder" for each in tree) + 1
    assert facts.links == 1
    assert facts.content_bytes == sum(int(each[3]) for each in tree if each[0] == "file")
    assert facts.labels == ("media",)
    assert facts.archive_sha256 == hashlib.sha256(packed.archive.read_bytes()).hexdigest()
    assert facts.read_from <= facts.read_until


def test_the_stock_tools_read_it(media: Path, packed: Packed, tmp_path: Path):
    zstd, tar = needs_tool("zstd"), needs_tool("tar")
    target = tmp_path / "stock"
    target.mkdir()
    subprocess.run(f"{zstd} -dc {packed.archive} | {tar} -x -C {target}", shell=True, check=True)
    (target / NAME).unlink()
    assert tree_of(target / "media") == tree_of(media)


def test_the_digests_of_the_index_are_those_of_the_files(media: Path, packed: Packed):
    head, *lines, foot = packed.index()
    assert head == {
        "type": "django-walsafe/media-index",
        "format": 1,
        "folders": [{"name": "media", "path": str(media)}],
    }
    assert foot["files"] == packed.facts.files
    files = {line["path"]: line for line in lines if line["kind"] == "file"}
    assert len(files) == 7
    for path, line in files.items():
        content = (media.parent / os.fsdecode(path.encode("utf-8", "surrogateescape"))).read_bytes()
        assert (line["bytes"], line["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_index_is_the_last_member_and_its_digest_is_the_fact(packed: Packed):
    with tarfile.open(fileobj=BytesIO(packed.tar())) as tar:
        member = tar.getmembers()[-1]
        file = tar.extractfile(member)
        assert file is not None
        assert member.name == NAME
        assert hashlib.sha256(file.read()).hexdigest() == packed.facts.index_sha256


def test_the_same_folder_gives_the_same_tar(media: Path, make: Make):
    first, second = make(media, name="one"), make(media, name="two")
    assert first.facts.tar_sha256 == second.facts.tar_sha256
    assert first.facts.index_sha256 == second.facts.index_sha256
    (media / "empty").write_bytes(b"not any more")
    assert make(media, name="three").facts.tar_sha256 != first.facts.tar_sha256


def test_folders_of_one_name_are_kept_apart(tmp_path: Path, make: Make):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    folders = [folder_of(tmp_path / each, x=each.encode()) for each in ("a", "b")]
    packed = make(*folders)
    packed.extract(tmp_path / "new")
    assert packed.facts.labels == ("media", "media-2")
    assert (tmp_path / "new" / "media" / "x").read_bytes() == b"a"
    assert (tmp_path / "new" / "media-2" / "x").read_bytes() == b"b"


def test_a_folder_with_the_name_of_the_index_gets_another(tmp_path: Path, make: Make):
    packed = make(folder_of(tmp_path, name=NAME, x=b"1"))
    assert packed.facts.labels == (f"{NAME}-2",)
    packed.extract(tmp_path / "new")
    assert (tmp_path / "new" / f"{NAME}-2" / "x").read_bytes() == b"1"


def test_an_empty_folder_is_an_archive_too(tmp_path: Path, make: Make):
    packed = make(folder_of(tmp_path))
    assert (packed.facts.files, packed.facts.folders) == (0, 1)
    packed.extract(tmp_path / "new")
    assert names_in(tmp_path / "new" / "media") == set()


def test_set_user_id_and_its_like_are_not_kept(tmp_path: Path, make: Make):
    folder = folder_of(tmp_path, tool=b"#!/bin/sh")
    (folder / "tool").chmod(0o6755)
    make(folder).extract(tmp_path / "new")
    assert (tmp_path / "new" / "media" / "tool").stat().st_mode & 0o7777 == 0o755


def test_a_time_that_no_archive_can_hold_is_the_nearest_that_can(tmp_path: Path, make: Make):
    folder = folder_of(tmp_path, file=b"1", other=b"2")
    (folder / "sub").mkdir()
    (folder / "link").symlink_to("file")
    far_ns = 9_300_000_000 * 10**9
    for name in ("file", "sub", "link"):
        os.utime(folder / name, ns=(far_ns, far_ns), follow_symlinks=False)
    if (folder / "file").stat().st_mtime_ns != far_ns:
        pytest.skip("this file system has no such times")
    packed = make(folder)
    assert all(check.ok for check in packed.verify(tmp_path))
    assert packed.made.problems == ()
    assert packed.made.remarks == (f"3 {packing._TIME}: media/file, media/link, media/sub",)
    packed.extract(tmp_path / "new")
    restored = tmp_path / "new" / "media"
    assert {(restored / each).lstat().st_mtime_ns for each in ("file", "sub", "link")} == {(1 << 63) - 1}
    assert (restored / "other").stat().st_mtime_ns == (folder / "other").stat().st_mtime_ns


def test_folders_with_long_names_that_are_no_text_come_back(tmp_path: Path, make: Make):
    folders = [tmp_path / each / os.fsdecode(b"\xe1" * 100) for each in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "x").write_text(folder.parent.name)
    packed = make(*folders)
    assert packed.facts.labels == ("\ufffd" * 80, "\ufffd" * 80 + "-2")
    assert packed.made.problems == ()
    packed.extract(tmp_path / "new")
    assert [(tmp_path / "new" / label / "x").read_text() for label in packed.facts.labels] == ["a", "b"]


def test_what_our_own_reader_would_refuse_is_a_problem_and_the_rest_is_stored(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
):
    """Some file systems allow longer names than an archive does; a lower limit stands for them here."""
    folder = folder_of(tmp_path, **{"file": b"1", "x" * 101: b"2"})
    (folder / ("y" * 101)).mkdir()
    (folder / ("y" * 101) / "below").write_bytes(b"3")
    (folder / ("z" * 101)).symlink_to("file")
    monkeypatch.setattr(tar, "MAX_NAME_BYTES", 100)
    packed = make(folder)
    assert packed.made.problems[0].startswith(f"4 {packing._STRANGE}: media/xxx")
    assert not packed.made.check().ok
    assert all(check.ok for check in packed.verify(tmp_path))
    packed.extract(tmp_path / "new")
    assert names_in(tmp_path / "new" / "media") == {"file"}


def test_hard_links_come_back_as_files_of_their_own(tmp_path: Path, make: Make):
    folder = folder_of(tmp_path, one=b"content")
    (folder / "two").hardlink_to(folder / "one")
    packed = make(folder)
    packed.extract(tmp_path / "new")
    assert packed.facts.files == 2
    assert [(tmp_path / "new" / "media" / each).read_bytes() for each in ("one", "two")] == [b"content"] * 2


def test_a_sparse_file_costs_no_room_in_the_archive(tmp_path: Path, make: Make):
    folder = folder_of(tmp_path)
    with open(folder / "sparse", "wb") as file:
        file.truncate(64 << 20)
        file.seek(5 << 20)
        file.write(b"island")
    packed = make(folder)
    assert packed.archive.stat().st_size < 64 << 10
    packed.extract(tmp_path / "new")
    assert tree_of(tmp_path / "new" / "media") == tree_of(folder)


def test_pipes_sockets_and_what_else_is_no_file_are_left_out_and_named(tmp_path: Path, make: Make):
    folder = folder_of(tmp_path, file=b"1")
    os.mkfifo(folder / "pipe")
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(folder / "socket"))
        packed = make(folder)
    assert packed.made.remarks == ("2 sockets, pipes or devices were left out: media/pipe, media/socket",)
    assert packed.made.problems == ()
    packed.extract(tmp_path / "new")
    assert names_in(tmp_path / "new" / "media") == {"file"}


def test_links_are_stored_and_never_followed(tmp_path: Path, make: Make):
    outside = folder_of(tmp_path, "outside", secret=b"nobody's business")
    folder = folder_of(tmp_path, file=b"1")
    (folder / "folder").symlink_to(outside)
    (folder / "loop").symlink_to("loop")
    packed = make(folder)
    assert b"nobody's business" not in packed.tar()
    assert {line["path"]: line["target"] for line in packed.index()[1:-1] if line["kind"] == "link"} == {
        "media/folder": str(outside),
        "media/loop": "loop",
    }


def test_a_link_is_no_folder_to_take_care_of(tmp_path: Path):
    folder_of(tmp_path, "real", file=b"1")
    (tmp_path / "media").symlink_to("real")
    with pytest.raises(InputError, match="is a link or no folder"):
        pack_folders([tmp_path / "media"], tmp_path / "archive", watch=Watch())
    with pytest.raises(NotFoundError):
        pack_folders([tmp_path / "missing"], tmp_path / "archive", watch=Watch())
    assert not (tmp_path / "archive").exists()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can reach, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_file_that_cannot_be_read_is_a_problem_with_its_name(open_folder: Path):
    folder = folder_of(open_folder, readable=b"1", secret=b"2")
    folder.chmod(0o755)
    (folder / "secret").chmod(0)
    (folder / "closed").mkdir(mode=0)
    program = """
import os, sys
from pathlib import Path
from backups_app.core.media.pack import pack_folders
from backups_app.core.progress import Watch
folder, archive = map(Path, sys.argv[1:])
pack_folders([archive.parent], archive.with_name("first"), watch=Watch())  # what is imported late is there then
if os.getuid() == 0:
    os.chown(archive.parent, 65534, 65534)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
packed = pack_folders([folder], archive, watch=Watch())
print(packed.check().ok, packed.counts.files, *packed.problems, sep="\\n")
"""
    (folder / "readable").chmod(0o644)
    store = open_folder / "store"
    store.mkdir()
    finished = run_python(program, folder, store / "archive", check=False)
    assert finished.stderr == ""
    said = finished.stdout.splitlines()
    (folder / "closed").chmod(0o700)
    assert said[:2] == ["False", "1"]
    assert sorted(said[2:]) == [
        "1 files could not be read: media/secret (Permission denied)",
        "1 folders could not be read: media/closed (Permission denied)",
    ]


def during(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Have something done to the folder each time that a file was just read, or a piece of it."""
    reads = 0
    really_read = packing.read_at_most

    def read(stream: object, limit_bytes: int) -> bytes:
        nonlocal reads
        content = really_read(stream, limit_bytes)  # type: ignore[arg-type]
        reads += 1
        act(reads)
        return content

    monkeypatch.setattr(packing, "read_at_most", read)


def test_a_small_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
):
    folder = folder_of(tmp_path, file=b"old")
    during(monkeypatch, lambda reads: reads == 1 and (folder / "file").write_bytes(b"newer"))  # type: ignore[arg-type]
    packed = make(folder)
    assert packed.made.remarks == ()
    packed.extract(tmp_path / "new")
    assert (tmp_path / "new" / "media" / "file").read_bytes() == b"newer"


def test_a_small_file_that_never_rests_is_stored_as_it_was_met_and_marked(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
):
    folder = folder_of(tmp_path, file=b"0")

    def append(reads: int) -> None:
        with open(folder / "file", "ab") as file:
            file.write(str(reads).encode())

    during(monkeypatch, append)
    packed = make(folder)
    assert packed.made.remarks == (f"1 {packing._CHANGED}: media/file",)
    assert packed.made.problems == ()
    packed.extract(tmp_path / "new")
    assert (tmp_path / "new" / "media" / "file").read_bytes() == b"012"
    assert [line["path"] for line in packed.index() if line.get("changed")] == ["media/file"]


def test_a_small_file_that_becomes_a_large_one_while_it_is_read_is_stored_whole(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
):
    folder = folder_of(tmp_path, file=b"old", other=b"1")
    large = os.urandom(packing.SMALL_BYTES * 2 + 1000)
    during(monkeypatch, lambda reads: reads == 1 and (folder / "file").write_bytes(large))  # type: ignore[arg-type]
    packed = make(folder)
    assert packed.made.problems == packed.made.remarks == ()
    assert all(check.ok for check in packed.verify(tmp_path))
    packed.extract(tmp_path / "new")
    assert tree_of(tmp_path / "new" / "media") == tree_of(folder)


class Acting(Watch):
    """A watch that does something at the first report of a phase."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act
        self._is_done = False

    def report(self, phase: str, done_bytes: int, total_bytes: int) -> None:
        if not self._is_done:
            self._is_done = True
            self._act()


def large_folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path, large=os.urandom(12 << 20), small=b"1")


def test_a_large_file_that_grows_is_stored_as_far_as_it_was_and_marked(tmp_path: Path, make: Make):
    folder = large_folder(tmp_path)
    before = (folder / "large").read_bytes()

    def grow() -> None:
        with open(folder / "large", "ab") as file:
            file.write(b"more")

    packed = make(folder, watch=Acting(grow))
    assert packed.made.remarks == (f"1 {packing._CHANGED}: media/large",)
    packed.extract(tmp_path / "new")
    assert (tmp_path / "new" / "media" / "large").read_bytes() == before
    assert (tmp_path / "new" / "media" / "small").read_bytes() == b"1"


def test_a_large_file_that_is_cut_short_is_a_problem(tmp_path: Path, make: Make):
    folder = large_folder(tmp_path)
    packed = make(folder, watch=Acting(lambda: os.truncate(folder / "large", 2 << 20)))
    assert packed.made.problems == (f"1 {packing._SHORT}: media/large",)
    assert not packed.made.check().ok
    assert all(check.ok for check in packed.verify(tmp_path))  # the archive itself is what was written


def test_a_file_that_goes_away_in_between_is_a_remark(tmp_path: Path, make: Make):
    folder = large_folder(tmp_path)
    packed = make(folder, watch=Acting((folder / "small").unlink))
    assert packed.made.remarks == ("1 files went away while they were read: media/small",)
    assert packed.made.problems == ()
    packed.extract(tmp_path / "new")
    assert names_in(tmp_path / "new" / "media") == {"large"}


def test_a_folder_that_is_swapped_for_a_link_is_not_followed(tmp_path: Path, make: Make):
    outside = folder_of(tmp_path, "outside", secret=b"nobody's business")
    folder = large_folder(tmp_path)
    (folder / "sub").mkdir()

    def swap() -> None:
        (folder / "sub").rmdir()
        (folder / "sub").symlink_to(outside)

    packed = make(folder, watch=Acting(swap))
    assert b"nobody's business" not in packed.tar()
    kinds = {line["path"]: line["kind"] for line in packed.index()[1:-1]}
    assert kinds["media/sub"] == "link"


def test_a_folder_that_others_work_in_all_the_time_gives_a_whole_archive(tmp_path: Path, make: Make):
    folder = folder_of(tmp_path)
    for number in range(300):
        (folder / f"{number:04}").write_bytes(os.urandom(3000))
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (folder / f"{number % 300:04}").write_bytes(os.urandom(number % 9000))
            (folder / f"{(number * 7) % 300:04}").unlink(missing_ok=True)
            (folder / f"new-{number % 50}").write_bytes(b"x" * (number % 5000))
            time.sleep(0.0005)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        packed = make(folder)
    finally:
        stop.set()
        worker.join()
    assert all(check.ok for check in packed.verify(tmp_path))
    assert packed.made.problems == ()
    packed.extract(tmp_path / "new")
    assert len(names_in(tmp_path / "new" / "media")) == packed.facts.files


# Databases


def test_a_database_in_use_is_never_opened_wherever_it_lies(tmp_path: Path, make: Make):
    """Closing any descriptor of it would drop the locks of this process, and others could then write in between."""
    folder = folder_of(tmp_path, file=b"1")
    live = build_shop(folder / "shop.db")
    (folder / "other name").hardlink_to(live)
    other = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0); c.execute('BEGIN IMMEDIATE'); print('got')"
    )
    with connected(live) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("BEGIN IMMEDIATE")
        packed = make(folder, databases=[live])
        refused = run_python(other, live, check=False)
        assert "database is locked" in refused.stderr  # so the lock is still there
        connection.execute("ROLLBACK")
    assert packed.made.remarks == (
        "2 databases under care, or in use here, were left out: media/other name, media/shop.db",
    )
    assert packed.facts.files == 1


def test_the_log_of_a_database_in_use_is_left_out_too(tmp_path: Path, make: Make):
    folder = folder_of(tmp_path, file=b"1")
    live = build_shop(folder / "shop.db")
    with connected(live) as connection:
        connection.execute("INSERT INTO product (name) VALUES ('fig')")
        packed = make(folder, databases=[live])
        assert "shop.db-wal" in names_in(folder)
    assert packed.facts.files == 1
    assert "shop.db-wal" in packed.made.remarks[0]


def test_a_database_that_nobody_put_under_care_is_stored_and_remarked_on(tmp_path: Path, make: Make):
    folder = folder_of(tmp_path)
    leave_behind(build_shop(folder / "other.db"), "INSERT INTO product (name) VALUES ('fig')")
    packed = make(folder)
    assert packed.made.remarks == (f"1 {packing._DATABASE}: media/other.db",)
    with closing(sqlite3.connect(folder / "other.db")) as connection:
        assert connection.execute("SELECT count(*) FROM product").fetchone() == (4,)


# Stopping


def test_a_cancel_leaves_nothing(tmp_path: Path):
    folder = large_folder(tmp_path)
    store = tmp_path / "store"
    store.mkdir()
    reports: list[str] = []
    watch = Watch(on_progress=lambda phase, *_: reports.append(phase), is_cancelled=lambda: len(reports) >= 3)
    with pytest.raises(CancelledError):
        pack_folders([folder], store / "archive", watch=watch)
    assert set(reports) == {"media"}
    assert names_in(store) == set()


def test_too_little_room_is_said_before_anything_is_read(tmp_path: Path):
    folder = large_folder(tmp_path)
    with mounted_tmpfs(tmp_path / "disk", size_bytes=2 << 20) as disk:
        with pytest.raises(DiskFullError, match="archive of media"):
            pack_folders([folder], disk / "archive", watch=Watch())
        assert names_in(disk) == set()


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = large_folder(tmp_path)
    monkeypatch.setattr(packing, "require_free_space", lambda *_, **__: None)
    with mounted_tmpfs(tmp_path / "disk", size_bytes=2 << 20) as disk:
        with pytest.raises(DiskFullError, match="disk is full"):
            pack_folders([folder], disk / "archive", watch=Watch())
        assert names_in(disk) == set()


def test_folders_nested_deeper_than_any_are_a_problem_and_the_rest_is_stored(tmp_path: Path, make: Make):
    folder = folder_of(tmp_path, file=b"1")
    here = os.open(folder, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    packed = make(folder)
    assert packed.made.problems[0].startswith("1 paths are too long or too deep: media/d/d/d")
    assert packed.facts.folders == 256
    assert all(check.ok for check in packed.verify(tmp_path))
    packed.extract(tmp_path / "new")
    assert (tmp_path / "new" / "media" / "file").read_bytes() == b"1"


# Sizes

_MEASURED = """
import os, resource, sys
from pathlib import Path
from backups_app.core.extract import open_archive_file
from backups_app.core.media.pack import pack_folders
from backups_app.core.media.unpack import extracting_media, verify_media_full
from backups_app.core.progress import Watch
folder, store = map(Path, sys.argv[1:])
archive = store / "archive"
packed = pack_folders([folder], archive, watch=Watch())
facts = packed.facts(archive.name)
opened = lambda: open_archive_file(archive)
checks = verify_media_full(opened, facts, encryption=None, scratch=store, watch=Watch())
assert all(check.ok for check in checks), checks
with extracting_media(opened, facts, store / "new", encryption=None, watch=Watch()):
    pass
print(packed.counts.files, packed.counts.content_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measured(folder: Path, store: Path) -> tuple[int, int, int]:
    store.mkdir()
    files, size_bytes, resident_kib = map(int, run_python(_MEASURED, folder, store).stdout.split())
    return files, size_bytes, resident_kib << 10


def test_memory_does_not_grow_with_the_size_of_a_file(tmp_path: Path):
    small = folder_of(tmp_path, "small", file=os.urandom(1 << 20))
    large = folder_of(tmp_path, "large")
    with open(large / "file", "wb") as file:
        file.writelines(os.urandom(1 << 20) for _ in range(150))
    *_, base_bytes = measured(small, tmp_path / "one")
    _, size_bytes, peak_bytes = measured(large, tmp_path / "two")
    assert size_bytes == 150 << 20
    assert peak_bytes - base_bytes < 48 << 20


def test_memory_hardly_grows_with_the_number_of_files(tmp_path: Path):
    few, many = folder_of(tmp_path, "few", file=b"1"), folder_of(tmp_path, "many")
    for number in range(6_000):
        if number % 1000 == 0:
            below = many / f"{number:06}"
            below.mkdir()
        (below / f"{number}.txt").write_bytes(b"%d" % number)
    *_, base_bytes = measured(few, tmp_path / "one")
    files, _, peak_bytes = measured(many, tmp_path / "two")
    assert files == 6_000
    assert peak_bytes - base_bytes < 16 << 20
