"""An archive of folders read back: proven file by file, or nothing of it is there."""

from __future__ import annotations

import errno
import io
import random
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backups_app.core import age
from backups_app.core import archive as archives
from backups_app.core.age import X25519Identity
from backups_app.core.archive import Keys, write_pieces
from backups_app.core.create import prove_stored
from backups_app.core.errors import (
    BackupError,
    CancelledError,
    DiskFullError,
    KeyMissingError,
    RefusedError,
    UnreachableError,
    VerificationError,
)
from backups_app.core.media import unpack as unpacking
from backups_app.core.media.index import NAME, Counts, Root, foot_line, head_line, member_line
from backups_app.core.media.tar import Member, header, padding, trailer
from backups_app.core.media.unpack import extracting_media, verify_media_full, verify_media_quick
from backups_app.core.progress import Watch
from backups_app.core.verify import failures, reason_of
from tests.core.media.packed import Packed, left_in, pack, tree_of
from tests.support import mounted_tmpfs, names_in, opener


def test_a_whole_archive_passes_every_check(packed: Packed, tmp_path: Path):
    checks = packed.verify(tmp_path)
    assert [check.name for check in checks] == ["media stored bytes", "media content digest", "media files"]
    assert all(check.ok for check in checks)
    assert checks[-1].evidence.startswith("7 files with ")
    quick = verify_media_quick(packed.open, packed.facts, watch=Watch())
    assert [(check.name, check.ok) for check in quick] == [("media stored bytes", True)]
    assert left_in(tmp_path) == []


def repacked(packed: Packed, tar: bytes, **changed: Any) -> Packed:
    """Another tar in the place of an archive, with facts that fit it but for what is said."""
    packed.archive.unlink()
    stream = write_pieces(iter([tar]), packed.archive)
    facts = replace(
        packed.facts,
        archive_bytes=stream.archive_bytes,
        archive_sha256=stream.archive_sha256,
        tar_bytes=stream.packed_bytes,
        tar_sha256=stream.packed_sha256,
    )
    return replace(packed, facts=replace(facts, **changed))


Pair = tuple[Member, bytes]


def file(path: str, content: bytes, **fields: Any) -> Pair:
    return Member(path=path, kind="file", size_bytes=len(content), **fields), content


def folder(path: str) -> Pair:
    return Member(path=path, kind="folder", mode=0o755), b""


def link(path: str, target: str) -> Pair:
    return Member(path=path, kind="link", target=target), b""


def tar_of(*members: Pair, lines: list[bytes] | None = None) -> bytes:
    """A tar with a right index, or with other ``lines``."""
    import hashlib

    counts = Counts()
    made = [head_line([Root(label="media", path=Path("/media"))])]
    for member, content in members:
        counts.add(member)
        made.append(member_line(member, sha256=hashlib.sha256(content).hexdigest()))
    made.append(foot_line(counts))
    index = b"".join(made if lines is None else lines)
    tar = b"".join(
        header(member) + content + padding(len(content)) for member, content in (*members, file(NAME, index))
    )
    return tar + trailer(len(tar))


def index_digest(tar: bytes) -> str:
    import hashlib

    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        found = opened.extractfile(NAME)
        assert found is not None
        return hashlib.sha256(found.read()).hexdigest()


def forged(packed: Packed, *members: Pair) -> Packed:
    """An archive of a stranger, with a right index and facts that fit: what a thief of the signing key may make."""
    tar = tar_of(*members)
    return repacked(packed, tar, index_sha256=index_digest(tar))


def refused(packed: Packed, tmp_path: Path) -> str:
    """Why an archive is not extracted; nothing of it is there."""
    with pytest.raises(VerificationError) as caught:
        packed.extract(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert left_in(tmp_path) == []
    reason = reason_of(packed.verify(tmp_path))
    assert reason
    assert reason in caught.value.message
    return reason


def test_what_is_forged_is_fine_without_the_harm(packed: Packed, tmp_path: Path):
    fine = forged(packed, folder("media"), file("media/a", b"1"), folder("media/b"), link("media/b/l", "../a"))
    fine.extract(tmp_path / "new")
    assert (tmp_path / "new" / "media" / "b" / "l").read_bytes() == b"1"


@pytest.mark.parametrize(
    "members",
    [
        [folder("media"), link("media/out", "/tmp"), file("media/out/x", b"harm")],
        [folder("media"), link("media/out", "b"), folder("media/b"), file("media/out/x", b"harm")],
        [folder("media"), file("media/a", b"1"), file("media/a", b"2")],
        [folder("media"), folder("media")],
        [folder("media"), file("media/../../x", b"harm")],
        [folder("media"), file("/x", b"harm")],
        [file("loose", b"harm")],
        [link("media", "/tmp"), file("media/x", b"harm")],
        [folder("media"), file("media/tool", b"#!", mode=0o4755)],
    ],
)
def test_hostile_members_are_refused_and_nothing_is_written(packed: Packed, tmp_path: Path, members: list[Pair]):
    assert "not as they are written here" in refused(forged(packed, *members), tmp_path)


def test_links_that_lead_out_are_left_out_and_named(packed: Packed, tmp_path: Path):
    hostile = forged(
        packed,
        folder("media"),
        folder("media/d"),
        link("media/d/up", ".."),
        link("media/d/zz", "up/../../../etc"),
        link("media/etc", "/etc"),
        link("media/shadow", "../../../../etc/shadow"),
    )
    found = hostile.extract(tmp_path / "new")
    assert found.remarks == (
        "3 links lead out of their folder and were left out: media/d/zz → up/../../../etc, media/etc → /etc, "
        "media/shadow → ../../../../etc/shadow",
    )
    assert names_in(tmp_path / "new" / "media") == {"d"}
    assert names_in(tmp_path / "new" / "media" / "d") == {"up"}
    assert all(check.ok for check in found.checks)


def test_a_file_that_is_not_as_in_the_index_is_named(packed: Packed, tmp_path: Path):
    members = [folder("media"), file("media/a", b"1"), file("media/b", b"2")]
    tar = tar_of(*members)
    lines = [line.encode() + b"\n" for line in _index_text(tar).splitlines()]
    other = tar_of(folder("media"), file("media/a", b"1"), file("media/b", b"3"), lines=lines)
    reason = refused(repacked(packed, other, index_sha256=index_digest(tar)), tmp_path)
    assert "media/b" in reason
    assert "the index says" in reason
    assert "media/a" not in reason


def _index_text(tar: bytes) -> str:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        found = opened.extractfile(NAME)
        assert found is not None
        return found.read().decode()


def test_a_missing_or_an_extra_member_is_found(packed: Packed, tmp_path: Path):
    whole = [folder("media"), file("media/a", b"1"), file("media/b", b"2"), file("media/c", b"3")]
    lines = [line.encode() + b"\n" for line in _index_text(tar_of(*whole)).splitlines()]
    digest = index_digest(tar_of(*whole))
    for members in (
        [*whole[:2], whole[3]],
        whole[:3],
        [*whole, file("media/d", b"4")],
        [*whole[:2], file("media/aa", b""), *whole[2:]],
    ):
        other = repacked(packed, tar_of(*members, lines=lines), index_sha256=digest)
        assert "the index says" in refused(other, tmp_path)


def test_an_index_that_the_manifest_does_not_know_is_refused(packed: Packed, tmp_path: Path):
    other = repacked(packed, tar_of(folder("media"), file("media/a", b"1")))
    assert f"expected {packed.facts.index_sha256}" in refused(other, tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_an_index_that_ends_too_early_is_refused(packed: Packed, tmp_path: Path, keep: int):
    members = [folder("media"), file("media/a", b"1")]
    lines = [line.encode() + b"\n" for line in _index_text(tar_of(*members)).splitlines()]
    tar = tar_of(*members, lines=lines[:keep])
    assert "ends too early" in refused(repacked(packed, tar, index_sha256=index_digest(tar)), tmp_path)


def test_an_index_of_one_endless_line_is_refused_in_little_memory(packed: Packed, tmp_path: Path):
    tar = tar_of(folder("media"), lines=[b"x" * (5 << 20)])
    assert "too long" in refused(repacked(packed, tar, index_sha256=index_digest(tar)), tmp_path)


def test_a_tar_without_index_and_members_behind_it_are_refused(packed: Packed, tmp_path: Path):
    bare = header(folder("media")[0])
    assert "the index is missing" in refused(repacked(packed, bare + trailer(len(bare))), tmp_path)
    tar = tar_of(folder("media"))
    end = header(file("zz", b"")[0])
    inside = tar.rstrip(b"\0")
    inside += padding(len(inside)) + end
    assert "stands behind the index" in refused(repacked(packed, inside + trailer(len(inside))), tmp_path)


# Damage


def test_a_flipped_bit_anywhere_is_found(packed: Packed, tmp_path: Path):
    stored = packed.archive.read_bytes()
    chance = random.Random(7)
    for at in [0, 4, len(stored) - 1, *(chance.randrange(len(stored)) for _ in range(60))]:
        flipped = bytearray(stored)
        flipped[at] ^= 1 << chance.randrange(8)
        packed.archive.write_bytes(flipped)
        found = packed.verify(tmp_path)
        assert not found[0].ok, at
        assert failures(found)
        assert failures(verify_media_quick(packed.open, packed.facts, watch=Watch()))
    with pytest.raises(VerificationError):
        packed.extract(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("part", [0.0, 0.3, 0.999])
def test_an_archive_that_is_cut_is_refused_and_nothing_is_left(packed: Packed, tmp_path: Path, part: float):
    stored = packed.archive.read_bytes()
    packed.archive.write_bytes(stored[: int(len(stored) * part)])
    reason = refused(packed, tmp_path)
    assert "media stored bytes" in reason
    assert "media decompression" in reason


def test_more_than_the_manifest_says_is_never_read(packed: Packed, tmp_path: Path):
    bomb = repacked(packed, bytes(64 << 20), tar_bytes=1 << 20)
    assert "more than the 1,048,576 bytes" in refused(bomb, tmp_path)


# Keys


@pytest.fixture
def identity() -> X25519Identity:
    return X25519Identity.generate()


@pytest.fixture
def sealed(media: Path, tmp_path: Path, identity: X25519Identity) -> Packed:
    """An archive made by a host that knows the public recipient only."""
    return pack([media], tmp_path / "sealed", recipients=[identity.recipient])


def test_a_host_that_knows_recipients_only_proves_what_it_stored(sealed: Packed):
    assert all(check.ok for check in prove_stored(sealed.open, sealed.made.stream, watch=Watch(), prefix="media "))
    assert b"photo.jpg" not in sealed.archive.read_bytes()
    assert sealed.archive.read_bytes().startswith(age.MAGIC)


def test_an_encrypted_archive_comes_back_with_the_identity(
    sealed: Packed, media: Path, identity: X25519Identity, tmp_path: Path
):
    keys = Keys(identities=[identity])
    assert all(check.ok for check in sealed.verify(tmp_path, keys=keys))
    sealed.extract(tmp_path / "new", keys=keys)
    assert tree_of(tmp_path / "new" / "media") == tree_of(media)


def test_without_the_key_nothing_is_called_damaged_and_nothing_is_left(sealed: Packed, tmp_path: Path):
    for keys in (Keys(), Keys(identities=[X25519Identity.generate()])):
        with pytest.raises(KeyMissingError):
            sealed.verify(tmp_path, keys=keys)
        with pytest.raises(KeyMissingError):
            sealed.extract(tmp_path / "new", keys=keys)
    assert not (tmp_path / "new").exists()
    assert left_in(tmp_path) == []


def test_damage_is_damage_also_without_the_key(sealed: Packed, tmp_path: Path):
    stored = bytearray(sealed.archive.read_bytes())
    stored[-40] ^= 1  # of the payload: in the header it may be malformed as well
    sealed.archive.write_bytes(stored)
    assert [check.name for check in failures(sealed.verify(tmp_path))] == ["media stored bytes"]


# The new folder


@pytest.mark.parametrize("kind", ["folder", "full folder", "file", "dangling link"])
def test_what_is_there_is_never_touched(packed: Packed, tmp_path: Path, kind: str):
    target = tmp_path / "new"
    if kind == "file":
        target.write_bytes(b"mine")
    elif kind == "dangling link":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
        if kind == "full folder":
            (target / "mine").write_bytes(b"mine")
    before = target.lstat()
    with pytest.raises(RefusedError, match="exists already"):
        packed.extract(target)
    assert target.lstat() == before
    assert left_in(tmp_path) == []


def test_what_appears_meanwhile_is_never_touched(packed: Packed, tmp_path: Path):
    target = tmp_path / "new"
    with pytest.raises(RefusedError, match="exists already"):
        with extracting_media(packed.open, packed.facts, target, encryption=None, watch=Watch()):
            target.mkdir()
    assert names_in(target) == set()
    assert left_in(tmp_path) == []


def test_the_new_folder_is_private_and_appears_when_all_is_well(packed: Packed, tmp_path: Path):
    target = tmp_path / "new"
    with extracting_media(packed.open, packed.facts, target, encryption=None, watch=Watch()) as found:
        assert all(check.ok for check in found.checks)
        assert not target.exists()
    assert target.stat().st_mode & 0o777 == 0o700
    assert left_in(tmp_path) == []


def test_when_what_comes_with_it_fails_there_is_no_folder(packed: Packed, tmp_path: Path):
    with pytest.raises(BackupError, match="the database"):
        with extracting_media(packed.open, packed.facts, tmp_path / "new", encryption=None, watch=Watch()):
            raise BackupError("the database could not be written")
    assert not (tmp_path / "new").exists()
    assert left_in(tmp_path) == []


def test_a_cancel_leaves_nothing(packed: Packed, tmp_path: Path):
    with pytest.raises(CancelledError):
        packed.extract(tmp_path / "new", watch=Watch(is_cancelled=lambda: True))
    assert not (tmp_path / "new").exists()
    assert left_in(tmp_path) == []


def test_a_store_that_does_not_answer_is_not_damage(packed: Packed, tmp_path: Path):
    class Breaking(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise UnreachableError("The store does not answer.")
            return super().read(1000)

    opened = opener(lambda: Breaking(packed.archive.read_bytes()))
    with (
        pytest.raises(UnreachableError),
        extracting_media(opened, packed.facts, tmp_path / "new", encryption=None, watch=Watch()),
    ):
        pass
    with pytest.raises(UnreachableError):
        verify_media_full(opened, packed.facts, encryption=None, scratch=tmp_path, watch=Watch())
    assert not (tmp_path / "new").exists()
    assert left_in(tmp_path) == []


def test_too_little_room_is_said_first(packed: Packed, tmp_path: Path):
    huge = replace(packed, facts=replace(packed.facts, content_bytes=1 << 60))
    with pytest.raises(DiskFullError, match="folders of media"):
        huge.extract(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert left_in(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing(packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unpacking, "require_free_space", lambda *_, **__: None)
    with mounted_tmpfs(tmp_path / "disk", size_bytes=100 << 10) as disk:
        with pytest.raises(DiskFullError, match="disk is full"):
            packed.extract(disk / "new")
        assert names_in(disk) == set()


def test_a_write_that_fails_leaves_nothing(packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(archives, "write_all", fail)
    with pytest.raises(BackupError, match="writing the folders of media"):
        packed.extract(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert left_in(tmp_path) == []


def test_folders_without_rights_come_back_so_that_their_owner_can_move_them(
    tmp_path: Path, make: Callable[..., Packed]
):
    source = tmp_path / "media"
    source.mkdir()
    (source / "closed").mkdir()
    (source / "closed" / "file").write_bytes(b"1")
    (source / "closed").chmod(0o500)
    packed = make(source)
    packed.extract(tmp_path / "new")
    assert (tmp_path / "new" / "media" / "closed").stat().st_mode & 0o777 == 0o700
    (source / "closed").chmod(0o700)
    assert names_in(tmp_path / "new" / "media" / "closed") == {"file"}
