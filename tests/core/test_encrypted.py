"""Encrypted archives: the stock tools open them, their maker proves them without a key, damage is no missing key."""

from __future__ import annotations

import hashlib
import io
import random
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

import pytest

from backups_app.core import __main__ as program
from backups_app.core.archive import ENCRYPTION, Keys
from backups_app.core.create import CreateOptions, create_archive, prove_stored
from backups_app.core.errors import BackupError, CancelledError, InputError, KeyMissingError, VerificationError
from backups_app.core.extract import extract_file, inspect_file
from backups_app.core.progress import Watch
from backups_app.core.verify import LockedError, failures, verify_full, verify_quick
from tests.keys import Key, stock_restore, wrapped
from tests.support import Stored, content_of, manifest_of, names_in, run_python


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return Key(tmp_path / "key.txt")


@pytest.fixture
def other(tmp_path: Path) -> Key:
    return Key(tmp_path / "other.txt")


def make(source: Path, folder: Path, *keys: Key) -> Stored:
    folder.mkdir(parents=True, exist_ok=True)
    options = CreateOptions(recipients=[each.identity.recipient for each in keys])
    created = create_archive(source, folder, options=options, watch=Watch())
    archive = created.archive.path.rename(folder / "shop.sqlite3.zst.age")
    manifest = manifest_of(created.archive, created, name=archive.name, encryption=ENCRYPTION)
    manifest_path = folder / "shop.manifest.json"
    manifest_path.write_bytes(manifest.to_bytes())
    return Stored(archive=archive, manifest=manifest, manifest_path=manifest_path, created=created)


@pytest.fixture
def locked(shop: Path, tmp_path: Path, key: Key) -> Stored:
    """An archive that is encrypted for ``key``."""
    return make(shop, tmp_path / "store", key)


def keys_of(*keys: Key) -> Keys:
    return Keys(identities=[each.identity for each in keys])


def opening(content: bytes) -> AbstractContextManager[BinaryIO]:
    return nullcontext(io.BytesIO(content))


def full(stored: Stored, scratch: Path, *keys: Key, content: bytes | None = None) -> list[str]:
    """What a full verification finds wrong."""
    checks = verify_full(
        stored.open if content is None else lambda: opening(content),
        stored.manifest,
        required_tables=(),
        scratch=scratch,
        watch=Watch(),
        keys=keys_of(*keys),
    )
    return [check.name for check in failures(checks)]


def test_age_and_zstd_give_exactly_the_database(locked: Stored, key: Key, tmp_path: Path):
    found = stock_restore(key, locked.archive, tmp_path / "found.sqlite3")
    assert hashlib.sha256(found.read_bytes()).hexdigest() == locked.manifest.sha256


def test_the_maker_proves_what_is_stored_without_an_identity(locked: Stored):
    checks = prove_stored(locked.open, locked.created.archive, watch=Watch())
    assert [check.name for check in checks] == ["stored bytes", "content digest"]
    assert failures(checks) == []


def test_the_proof_finds_every_kind_of_damage(locked: Stored):
    content = locked.archive.read_bytes()
    chance = random.Random(5)
    for _ in range(60):
        at = chance.randrange(len(content))
        damaged = bytearray(content)
        damaged[at] ^= 1 << chance.randrange(8)
        for each in (bytes(damaged), content[:at], content + b"\0"):
            checks = prove_stored(lambda each=each: opening(each), locked.created.archive, watch=Watch())  # type: ignore[misc]
            assert failures(checks)


def test_the_file_key_shows_in_no_text(locked: Stored):
    assert "FileKey" not in repr(locked.created)
    assert "redacted" in repr(locked.created.archive.file_key)


def test_nothing_of_the_database_is_readable_in_the_archive(locked: Stored):
    content = locked.archive.read_bytes()
    assert content.startswith(b"age-encryption.org/v1\n")
    assert b"SQLite" not in content
    assert b"\x28\xb5\x2f\xfd" not in content, "no zstd frame"


def test_a_quick_look_needs_no_key(locked: Stored):
    assert failures(verify_quick(locked.open, locked.manifest, watch=Watch())) == []


def test_with_its_identity_an_archive_is_verified_in_full(locked: Stored, key: Key, other: Key, scratch: Path):
    assert full(locked, scratch, other, key) == []
    assert names_in(scratch) == set()


@pytest.mark.parametrize("is_wrong", [True, False], ids=["wrong key", "no key"])
def test_without_the_key_an_archive_is_locked_and_not_damaged(
    locked: Stored, other: Key, scratch: Path, is_wrong: bool
):
    with pytest.raises(LockedError) as raised:
        full(locked, scratch, *([other] if is_wrong else []))
    assert raised.value.exit_code == 5
    assert [check.name for check in raised.value.checks] == ["stored bytes"]
    assert names_in(scratch) == set()


@pytest.mark.parametrize("at", [0, 30, 60, 150, 190, 260, -1], ids=str)
@pytest.mark.parametrize("has_key", [True, False], ids=["key", "no key"])
def test_damage_is_damage_with_and_without_the_key(locked: Stored, key: Key, scratch: Path, at: int, has_key: bool):
    content = bytearray(locked.archive.read_bytes())
    content[at] ^= 1
    assert "stored bytes" in full(locked, scratch, *([key] if has_key else []), content=bytes(content))
    assert names_in(scratch) == set()


@pytest.mark.parametrize("has_key", [True, False], ids=["key", "no key"])
def test_a_truncated_archive_is_damaged_with_and_without_the_key(
    locked: Stored, key: Key, scratch: Path, has_key: bool
):
    content = locked.archive.read_bytes()
    for size in (0, 10, 100, 200, len(content) // 2, len(content) - 1):
        assert "stored bytes" in full(locked, scratch, *([key] if has_key else []), content=content[:size])


def test_each_of_several_recipients_opens_it(shop: Path, tmp_path: Path, key: Key, other: Key, scratch: Path):
    stored = make(shop, tmp_path / "store", key, other)
    assert full(stored, scratch, key) == []
    assert full(stored, scratch, other) == []
    assert stored.created.archive.recipients == (key.recipient, other.recipient)


def test_an_encryption_that_we_do_not_know_is_not_guessed(locked: Stored, key: Key, scratch: Path):
    odd = Stored(
        archive=locked.archive,
        manifest=manifest_of(locked.created.archive, locked.created, name="x", encryption="rot13"),
        manifest_path=locked.manifest_path,
        created=locked.created,
    )
    with pytest.raises(VerificationError, match="rot13"):
        full(odd, scratch, key)


@pytest.mark.parametrize("has_manifest", [True, False])
def test_an_archive_file_is_extracted_with_its_identity(
    locked: Stored, shop: Path, key: Key, tmp_path: Path, has_manifest: bool
):
    if not has_manifest:
        locked.manifest_path.unlink()
    target = tmp_path / "out" / "found.sqlite3"
    target.parent.mkdir()
    inspection = extract_file(locked.archive, target, watch=Watch(), keys=keys_of(key))
    assert failures(inspection.checks) == []
    assert content_of(target) == content_of(shop)


@pytest.mark.parametrize("has_manifest", [True, False])
def test_without_its_identity_nothing_is_extracted(locked: Stored, other: Key, tmp_path: Path, has_manifest: bool):
    if not has_manifest:
        locked.manifest_path.unlink()
    target = tmp_path / "out" / "found.sqlite3"
    target.parent.mkdir()
    for keys in (Keys(), keys_of(other)):
        with pytest.raises(KeyMissingError):
            extract_file(locked.archive, target, watch=Watch(), keys=keys)
    assert names_in(target.parent) == set()


def test_inspection_opens_it_too(locked: Stored, key: Key, scratch: Path):
    assert failures(inspect_file(locked.archive, scratch=scratch, watch=Watch(), keys=keys_of(key)).checks) == []
    assert names_in(scratch) == set()


def test_a_cancelled_creation_leaves_nothing(shop: Path, scratch: Path, key: Key):
    def cancel(phase: str, _done: int, _total: int) -> None:
        if phase == "compress":
            raise CancelledError("stop", "")

    with pytest.raises(CancelledError):
        create_archive(
            shop,
            scratch,
            options=CreateOptions(recipients=[key.identity.recipient]),
            watch=Watch(on_progress=cancel),
        )
    assert names_in(scratch) == set()


def test_memory_stays_constant(tmp_path: Path, large_database: Path, key: Key):
    program_text = """
import resource, sys
from pathlib import Path
from backups_app.core.age import X25519Recipient
from backups_app.core.create import CreateOptions, create_archive, prove_stored
from backups_app.core.beside import open_archive_file
from backups_app.core.progress import Watch
options = CreateOptions(recipients=[X25519Recipient.parse(sys.argv[3])])
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = create_archive(Path(sys.argv[1]), Path(sys.argv[2]), options=options, watch=Watch())
prove_stored(lambda: open_archive_file(made.archive.path), made.archive, watch=Watch())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle)
"""
    folder = tmp_path / "work"
    folder.mkdir()
    grown_kib = int(run_python(program_text, large_database, folder, key.recipient).stdout)
    assert grown_kib < 96 << 10


# python -m backups_app.core


def core(*arguments: object) -> int:
    return program.main([str(each) for each in arguments])


def test_the_program_restores_with_an_identity(
    locked: Stored, shop: Path, key: Key, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    target = tmp_path / "found.sqlite3"
    assert core("restore", locked.archive, "--identity", key.path, "--to", target) == 0
    assert content_of(target) == content_of(shop)
    assert core("inspect", locked.archive, "--identity", key.path, "--json") == 0
    out, err = capsys.readouterr()
    assert key.secret not in out + err
    assert '"sha256"' in out


def test_the_program_says_key_missing_and_leaves_nothing(
    locked: Stored, key: Key, other: Key, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    target = tmp_path / "out" / "found.sqlite3"
    target.parent.mkdir()
    assert core("restore", locked.archive, "--to", target) == 5
    assert "no identity was given" in capsys.readouterr().err
    assert core("restore", locked.archive, "--identity", other.path, "--to", target) == 5
    assert core("restore", locked.archive, "--identity", tmp_path / "missing", "--to", target) == 5
    other.path.write_text("AGE-SECRET-KEY-1NOTAKEY\n")
    assert core("restore", locked.archive, "--identity", other.path, "--to", target) == 5
    assert core("inspect", locked.archive) == 5
    assert names_in(target.parent) == set()
    assert "SECRET-KEY" not in capsys.readouterr().err.replace("AGE-SECRET-KEY-1…", "")


def test_a_protected_identity_is_opened_with_the_passphrase_of_the_environment(
    locked: Stored, key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    protected = wrapped(key, tmp_path / "protected.age", passphrase="correct horse")
    target = tmp_path / "found.sqlite3"
    assert core("restore", locked.archive, "--identity", protected, "--to", target) == 5, "nobody to ask"
    monkeypatch.setenv("BACKUPS_AGE_PASSPHRASE", "wrong horse")
    assert core("restore", locked.archive, "--identity", protected, "--to", target) == 5
    assert not target.exists()
    monkeypatch.delenv("BACKUPS_AGE_PASSPHRASE")
    (tmp_path / "passphrase").write_text("correct horse\n")
    monkeypatch.setenv("BACKUPS_AGE_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    assert core("restore", locked.archive, "--identity", protected, "--to", target) == 0
    assert target.exists()


def test_mutations_never_become_a_database(locked: Stored, key: Key, tmp_path: Path):
    locked.manifest_path.unlink()  # nothing but the format itself speaks against them
    content = locked.archive.read_bytes()
    chance = random.Random(7)
    target = tmp_path / "out" / "found.sqlite3"
    target.parent.mkdir()
    for _ in range(150):
        damaged = bytearray(content)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        locked.archive.write_bytes(damaged)
        with pytest.raises(BackupError):
            extract_file(locked.archive, target, watch=Watch(), keys=keys_of(key))
    assert names_in(target.parent) == set()


def test_recipients_that_cannot_be_used_together_are_refused(shop: Path, scratch: Path, key: Key):
    from backups_app.core.age import ScryptRecipient

    mixed = [key.identity.recipient, ScryptRecipient("x", work_factor=5)]
    with pytest.raises(InputError, match="passphrase"):
        create_archive(shop, scratch, options=CreateOptions(recipients=mixed), watch=Watch())
    assert names_in(scratch) == set()
