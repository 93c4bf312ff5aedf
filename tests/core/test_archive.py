"""The stored form: one zstd frame, read to the last byte, never more than it may hold."""

from __future__ import annotations

import errno
import hashlib
import io
import random
import stat
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from backports import zstd

from backups_app.core import archive as archives
from backups_app.core.archive import (
    CHUNK_BYTES,
    ContentDigest,
    compress,
    decompress,
    read_archive,
    unpack_archive,
    write_archive,
)
from backups_app.core.errors import (
    BackupError,
    CancelledError,
    DiskFullError,
    UnreachableError,
    VerificationError,
)
from backups_app.core.progress import Watch
from backups_app.core.snapshot import take_snapshot
from tests.support import (
    build_shop,
    bytes_in,
    connected,
    mounted_tmpfs,
    names_in,
    needs_tool,
    opener,
    run_python,
)

PLENTY = 1 << 40


def archive_of(content: bytes, **options: int) -> bytes:
    """``content`` as the engine compresses it."""
    pieces = iter([content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)])
    return b"".join(compress(pieces, **{"level": 1, "workers": 2, "size_bytes": len(content), **options}))


def read(stored: bytes, *, limit_bytes: int = PLENTY) -> archives.ReadArchive:
    return read_archive(io.BytesIO(stored), limit_bytes=limit_bytes, total_bytes=len(stored), watch=Watch())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def noise(size_bytes: int) -> bytes:
    """Bytes that do not compress, the same in each run."""
    return random.Random(7).randbytes(size_bytes)


def block_edges(frame: bytes) -> list[int]:
    """Offsets where the blocks of one zstd frame begin, and where its checksum does (RFC 8878, section 3.1.1)."""
    descriptor = frame[4]
    assert not descriptor & 3, "no dictionary is used"
    is_single_segment = bool(descriptor & 0x20)
    content_size_bytes = [1 if is_single_segment else 0, 2, 4, 8][descriptor >> 6]
    at = 5 + (0 if is_single_segment else 1) + content_size_bytes
    edges = [4, 5, at]
    is_last = False
    while not is_last:
        header = int.from_bytes(frame[at : at + 3], "little")
        is_last, kind, size = bool(header & 1), (header >> 1) & 3, header >> 3
        at += 3 + (1 if kind == 1 else size)
        edges.append(at)
    assert at + 4 == len(frame), "a checksum of four bytes ends the frame"
    return edges


# Whole


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(
    "size_bytes", [0, 1, 99, 100, 101, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7]
)
def test_content_of_any_size_comes_back_exactly(size_bytes: int, workers: int):
    content = noise(size_bytes)
    stored = archive_of(content, workers=workers)
    found = read(stored, limit_bytes=size_bytes)
    assert found.damage is None
    assert (found.content_bytes, found.sha256) == (size_bytes, sha256(content))
    assert (found.archive_bytes, found.archive_sha256) == (len(stored), sha256(stored))


def test_the_frame_carries_its_size_and_a_checksum():
    stored = archive_of(noise(3_000_000))
    assert zstd.get_frame_info(stored).decompressed_size == 3_000_000
    assert stored[4] & 0b100, "the checksum flag of RFC 8878, section 3.1.1.1.1"


def test_a_store_that_gives_single_bytes_is_read_as_well():
    class Dripping(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            return super().read(1)

    content = noise(5000)
    stored = archive_of(content)
    found = read_archive(Dripping(stored), limit_bytes=5000, total_bytes=0, watch=Watch())
    assert (found.damage, found.sha256, found.archive_sha256) == (None, sha256(content), sha256(stored))


def test_writing_describes_exactly_what_was_stored(shop: Path, scratch: Path):
    written = write_archive(shop, scratch / "a.zst", watch=Watch())
    stored, content = (scratch / "a.zst").read_bytes(), shop.read_bytes()
    assert (written.archive_bytes, written.archive_sha256) == (len(stored), sha256(stored))
    assert (written.content_bytes, written.sha256) == (len(content), sha256(content))
    assert stat.S_IMODE((scratch / "a.zst").stat().st_mode) == 0o600
    assert names_in(scratch) == {"a.zst"}


def test_writing_reports_progress_and_an_existing_file_is_kept(shop: Path, scratch: Path):
    seen: list[tuple[str, int, int]] = []
    size = shop.stat().st_size
    write_archive(shop, scratch / "a.zst", watch=Watch(on_progress=lambda *report: seen.append(report)))
    assert seen == [("compress", size, size)]
    before = bytes_in(scratch)
    with pytest.raises(BackupError):
        write_archive(shop, scratch / "a.zst", watch=Watch())
    assert bytes_in(scratch) == before


def test_stock_zstd_and_sqlite3_restore_an_archive_without_us(tmp_path: Path, scratch: Path):
    zstd_tool, sqlite_tool = needs_tool("zstd"), needs_tool("sqlite3")
    source = build_shop(tmp_path / "shop.db")
    with connected(source) as application:
        application.execute("INSERT INTO sale (note) VALUES ('only in the wal')")
        snapshot = take_snapshot(source, scratch / "snapshot", watch=Watch())
    write_archive(snapshot.path, scratch / "shop.sqlite3.zst", watch=Watch())
    subprocess.run([zstd_tool, "-q", "-t", scratch / "shop.sqlite3.zst"], check=True)
    subprocess.run([zstd_tool, "-q", "-d", scratch / "shop.sqlite3.zst", "-o", scratch / "out.db"], check=True)
    statements = "PRAGMA integrity_check; SELECT count(*) FROM product; SELECT count(*) FROM sale;"
    printed = subprocess.run(
        [sqlite_tool, scratch / "out.db", statements], check=True, capture_output=True, text=True
    ).stdout
    assert printed.split() == ["ok", "3", "5"]
    assert snapshot.census.tables == {"product": 3, "sale": 5}


def test_what_stock_zstd_compresses_can_be_read(tmp_path: Path):
    tool = needs_tool("zstd")
    (tmp_path / "plain").write_bytes(noise(300_000) * 3)
    subprocess.run([tool, "-q", "-19", "--long", tmp_path / "plain", "-o", tmp_path / "plain.zst"], check=True)
    found = read((tmp_path / "plain.zst").read_bytes())
    assert (found.damage, found.sha256) == (None, sha256(noise(300_000) * 3))


# The content digest


def test_the_content_digest_does_not_depend_on_the_pieces():
    content = noise(500)
    digests = set()
    for size in (1, 7, 99, 100, 101, 500):
        digest = ContentDigest()
        for at in range(0, 500, size):
            digest.update(content[at : at + size])
        digests.add(digest.hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("size_bytes", [0, 10, 19, 50, 99])
def test_a_content_shorter_than_a_header_has_a_digest_too(size_bytes: int):
    one, other = ContentDigest(), ContentDigest()
    one.update(noise(size_bytes))
    other.update(noise(size_bytes + 1))
    assert one.hexdigest() != other.hexdigest()


def test_the_content_digest_ignores_the_volatile_header_bytes_and_nothing_else():
    content = bytearray(noise(4096))

    def digest_with_changed_byte(at: int | None) -> str:
        changed = bytearray(content)
        if at is not None:
            changed[at] ^= 1
        digest = ContentDigest()
        digest.update(bytes(changed))
        return digest.hexdigest()

    plain = digest_with_changed_byte(None)
    ignored = {at for at in range(4096) if digest_with_changed_byte(at) == plain}
    assert ignored == {18, 19, *range(24, 28), *range(40, 44), *range(92, 100)}


def test_equal_content_has_equal_digests_whatever_the_checkpoint_state(shop: Path, scratch: Path):
    digests = []

    def copy_and_digest() -> None:
        snapshot = take_snapshot(shop, scratch / f"{len(digests)}", watch=Watch())
        digests.append(write_archive(snapshot.path, scratch / f"{len(digests)}.zst", watch=Watch()).content_sha256)

    with connected(shop) as application:
        application.execute("UPDATE sale SET note = 'changed'")
        copy_and_digest()
        application.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        copy_and_digest()
        application.execute("PRAGMA journal_mode=DELETE")
        copy_and_digest()
        application.execute("UPDATE sale SET note = 'again' WHERE id = 1")
        copy_and_digest()
    assert digests[0] == digests[1] == digests[2] != digests[3]


# Damaged


def assert_damaged(stored: bytes) -> None:
    found = read(stored)
    assert found.damage is not None
    # The digest of the stored bytes is evidence, so they are read to the end all the same.
    assert (found.archive_bytes, found.archive_sha256) == (len(stored), sha256(stored))


def test_a_tiny_archive_cut_at_any_byte_is_damaged():
    stored = archive_of(b"a few bytes that zstd keeps as they are, and some zeros" + bytes(300))
    assert read(stored).damage is None
    for length in range(len(stored)):
        assert_damaged(stored[:length])


def test_an_archive_cut_at_any_edge_is_damaged():
    stored = archive_of(noise(2 * CHUNK_BYTES) + bytes(CHUNK_BYTES) + noise(200_000))
    blocks = block_edges(stored)
    chunks = range(CHUNK_BYTES, len(stored), CHUNK_BYTES)
    assert len(blocks) > 10
    assert len(chunks) >= 2
    for edge in (*blocks, *chunks, len(stored)):
        for length in (edge - 1, edge, edge + 1):
            if length < len(stored):
                assert_damaged(stored[:length])


def test_a_flipped_bit_anywhere_is_damage_or_does_not_change_the_content():
    content = b"SQLite rows, more or less, " * 9 + noise(60)
    stored = archive_of(content)
    damaged = 0
    for at in range(len(stored) * 8):
        flipped = bytearray(stored)
        flipped[at // 8] ^= 1 << at % 8
        found = read(bytes(flipped), limit_bytes=len(content))
        assert found.damage is not None or found.sha256 == sha256(content), f"bit {at} gives other content"
        assert found.archive_sha256 != sha256(stored)
        damaged += found.damage is not None
    assert damaged > len(stored) * 8 * 0.95


def test_flipped_bits_all_over_a_large_archive_are_damage():
    content = noise(CHUNK_BYTES) + b"row" * CHUNK_BYTES + noise(CHUNK_BYTES)
    stored = archive_of(content)
    for edge in [*block_edges(stored), *range(0, len(stored), len(stored) // 40)]:
        flipped = bytearray(stored)
        flipped[min(edge, len(stored) - 1)] ^= 0x10
        found = read(bytes(flipped), limit_bytes=len(content))
        assert found.damage is not None or found.sha256 == sha256(content)


@pytest.mark.parametrize(
    "stored",
    [b"", b"\x28", b"\x28\xb5\x2f\xfd", b"just a text\n" * 50, b"\x1f\x8b\x08\0" + bytes(40), bytes(5000)],
    ids=["empty", "one byte", "magic only", "text", "gzip", "zeros"],
)
def test_what_is_no_archive_is_damaged(stored: bytes):
    assert_damaged(stored)


@pytest.mark.parametrize("size_bytes", [1, 3, 4, 100, CHUNK_BYTES, 2 * CHUNK_BYTES])
def test_garbage_after_the_end_is_damage(size_bytes: int):
    assert_damaged(archive_of(b"rows" * 100) + noise(size_bytes))


def test_a_second_frame_is_not_taken_for_the_same_content():
    content = b"rows" * 100
    stored = archive_of(content)
    assert "more than the 400 bytes" in str(read(stored + stored, limit_bytes=400).damage)
    assert read(stored + stored).sha256 == sha256(content * 2)
    assert_damaged(stored + stored[:-1])


def bomb(size_bytes: int) -> bytes:
    pieces = (bytes(CHUNK_BYTES) for _ in range(size_bytes // CHUNK_BYTES))
    return b"".join(compress(pieces, level=1, workers=0, size_bytes=size_bytes))


@pytest.fixture(scope="session")
def four_gigabytes_of_zeros() -> bytes:
    return bomb(4 << 30)


def test_a_bomb_is_stopped_at_the_limit(four_gigabytes_of_zeros: bytes):
    kept = 0

    def keep(content: bytes) -> None:
        nonlocal kept
        kept += len(content)

    tracemalloc.start()
    try:
        found = read_archive(
            io.BytesIO(four_gigabytes_of_zeros), limit_bytes=5_000_000, total_bytes=0, watch=Watch(), keep=keep
        )
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(found.damage, VerificationError)
    assert "more than the 5,000,000 bytes" in found.damage.message
    assert kept <= 5_000_000
    assert peak_bytes < 16 << 20


def test_a_bomb_of_many_frames_is_stopped_at_the_limit():
    frames = archive_of(bytes(CHUNK_BYTES)) * 2000
    assert "more than" in str(read(frames, limit_bytes=CHUNK_BYTES).damage)


def test_content_of_exactly_the_limit_is_allowed_and_one_more_byte_is_not():
    stored = archive_of(bytes(3 * CHUNK_BYTES))
    assert read(stored, limit_bytes=3 * CHUNK_BYTES).damage is None
    assert read(stored, limit_bytes=3 * CHUNK_BYTES - 1).damage is not None


def test_decompressing_yields_small_pieces_only(four_gigabytes_of_zeros: bytes):
    pieces = decompress(iter([four_gigabytes_of_zeros]), limit_bytes=PLENTY)
    assert max(len(next(pieces)) for _ in range(50)) <= CHUNK_BYTES


# Disks and stores that fail


def fill_disk_after(monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    """A disk that takes some bytes and then no more: the one fault that is not made for real here."""
    really_write = archives.write_all
    left = size_bytes

    def write(target: io.FileIO, piece: bytes) -> None:
        nonlocal left
        really_write(target, piece[:left])
        if len(piece) > left:
            raise OSError(errno.ENOSPC, "No space left on device")
        left -= len(piece)

    monkeypatch.setattr(archives, "write_all", write)


@pytest.mark.parametrize("size_bytes", [0, 1, 1_000_000])
def test_a_full_disk_while_compressing_is_said_and_nothing_is_left(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int
):
    (tmp_path / "content").write_bytes(noise(4_000_000))
    fill_disk_after(monkeypatch, size_bytes)
    with pytest.raises(DiskFullError, match="disk is full"):
        write_archive(tmp_path / "content", scratch / "a.zst", watch=Watch())
    assert names_in(scratch) == set()


def test_a_full_disk_while_unpacking_is_not_taken_for_a_store_that_does_not_answer(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
):
    stored = archive_of(noise(4_000_000))
    fill_disk_after(monkeypatch, 1_000_000)
    with pytest.raises(DiskFullError) as caught:
        unpack_archive(
            opener(lambda: io.BytesIO(stored)), scratch / "out", limit_bytes=PLENTY, total_bytes=0, watch=Watch()
        )
    assert not isinstance(caught.value, UnreachableError)


def test_a_really_full_disk_is_said_and_nothing_is_left(tmp_path: Path):
    (tmp_path / "content").write_bytes(noise(4_000_000))
    stored = archive_of(noise(4_000_000))
    with mounted_tmpfs(tmp_path / "disk", size_bytes=1 << 20) as disk:
        with pytest.raises(DiskFullError, match="disk is full"):
            write_archive(tmp_path / "content", disk / "a.zst", watch=Watch())
        assert names_in(disk) == set()
        with pytest.raises(DiskFullError, match="disk is full"):
            unpack_archive(
                opener(lambda: io.BytesIO(stored)), disk / "out", limit_bytes=PLENTY, total_bytes=0, watch=Watch()
            )


def test_a_limit_on_file_sizes_is_a_readable_failure_and_nothing_is_left(tmp_path: Path, scratch: Path):
    (tmp_path / "content").write_bytes(noise(4_000_000))
    program = """
import resource, sys
from pathlib import Path
from backups_app.core.archive import write_archive
from backups_app.core.errors import BackupError
from backups_app.core.progress import Watch
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
try:
    write_archive(Path(sys.argv[1]), Path(sys.argv[2]) / "a.zst", watch=Watch())
except BackupError as exc:
    print(exc.message)
"""
    assert "writing the archive" in run_python(program, tmp_path / "content", scratch).stdout
    assert names_in(scratch) == set()


def test_a_store_that_breaks_off_is_unreachable_and_not_damaged():
    class Breaking(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise UnreachableError("The store does not answer.")
            return super().read(1000)

    with pytest.raises(UnreachableError):
        read_archive(Breaking(archive_of(noise(5000))), limit_bytes=PLENTY, total_bytes=0, watch=Watch())


def test_a_store_that_breaks_off_behind_damage_is_unreachable_too():
    stored = bytearray(archive_of(noise(6 * CHUNK_BYTES)))
    stored[CHUNK_BYTES // 2 :: CHUNK_BYTES] = b"?" * len(stored[CHUNK_BYTES // 2 :: CHUNK_BYTES])

    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 5 * CHUNK_BYTES:
                raise UnreachableError("The store does not answer.")
            return super().read(size)

    with pytest.raises(UnreachableError):
        read_archive(Breaking(bytes(stored)), limit_bytes=PLENTY, total_bytes=0, watch=Watch())


def test_a_failure_of_who_keeps_the_content_is_not_taken_for_damage():
    def keep(_content: bytes) -> None:
        raise VerificationError("It is not what it should be.")

    with pytest.raises(VerificationError, match="not what it should be"):
        read_archive(
            io.BytesIO(archive_of(noise(9 * CHUNK_BYTES))), limit_bytes=PLENTY, total_bytes=0, watch=Watch(), keep=keep
        )


@pytest.mark.parametrize("at_report", [1, 3])
def test_a_cancel_while_compressing_leaves_nothing(tmp_path: Path, scratch: Path, at_report: int):
    (tmp_path / "content").write_bytes(noise(4 * CHUNK_BYTES))
    reports: list[str] = []
    watch = Watch(on_progress=lambda phase, *_: reports.append(phase), is_cancelled=lambda: len(reports) >= at_report)
    with pytest.raises(CancelledError):
        write_archive(tmp_path / "content", scratch / "a.zst", watch=watch)
    assert reports == ["compress"] * at_report
    assert names_in(scratch) == set()


def test_a_cancel_while_reading_stops_at_once():
    reports: list[str] = []
    watch = Watch(on_progress=lambda phase, *_: reports.append(phase), is_cancelled=lambda: len(reports) >= 2)
    with pytest.raises(CancelledError):
        read_archive(io.BytesIO(archive_of(noise(5 * CHUNK_BYTES))), limit_bytes=PLENTY, total_bytes=0, watch=watch)
    assert reports == ["read back"] * 2


def test_a_write_that_takes_only_a_part_is_continued():
    class Reluctant(io.BytesIO):
        def write(self, piece: bytes) -> int:
            return super().write(bytes(piece[:3]))

    target = Reluctant()
    archives.write_all(target, b"0123456789")
    assert target.getvalue() == b"0123456789"
