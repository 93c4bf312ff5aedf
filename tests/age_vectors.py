"""The public test vectors of the age format (C2SP/CCTV), which are never part of this repository.

They are looked for in the folder that ``BACKUPS_AGE_TESTKIT`` names, beside the repository, and
in the npm package that ``.ci/run`` fetches.
"""

from __future__ import annotations

import base64
import os
import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.support import PROJECT

BESIDE = PROJECT.parent / "shared" / "age-testkit" / "testdata"
PACKAGE = PROJECT / "tests" / ".cache" / "cctv-age-0.2.0.tgz"

# One vector in the package's only module: a comment with its file name, then its content.
_IN_PACKAGE = re.compile(r'// \.\./testdata/(\w+)\nvar \w+ = __toBinary\("([A-Za-z0-9+/=]*)"\)')


@dataclass(frozen=True)
class Vector:
    """An age file, the keys to try, and what must come of it."""

    name: str
    expect: str
    payload_sha256: str
    """Digest of everything that may be released, also before a failure."""
    file_key: bytes
    identities: tuple[str, ...]
    passphrases: tuple[str, ...]
    is_armored: bool
    stored: bytes

    @property
    def is_in_scope(self) -> bool:
        """All but the post-quantum recipients."""
        return not any(identity.startswith("AGE-SECRET-KEY-PQ-") for identity in self.identities)


def _parsed(name: str, content: bytes) -> Vector:
    head, _, stored = content.partition(b"\n\n")
    fields: dict[str, list[str]] = {}
    for line in head.decode().splitlines():
        field, _, value = line.partition(": ")
        fields.setdefault(field, []).append(value)
    unknown = fields.keys() - {
        *("expect", "payload", "file key", "identity", "passphrase", "armored", "compressed", "comment")
    }
    assert not unknown, f"{name} has unknown fields: {unknown}"
    return Vector(
        name=name,
        expect=fields["expect"][0],
        payload_sha256=fields.get("payload", [""])[0],
        file_key=bytes.fromhex(fields.get("file key", [""])[0]),
        identities=tuple(fields.get("identity", ())),
        passphrases=tuple(fields.get("passphrase", ())),
        is_armored=fields.get("armored") == ["yes"],
        stored=zlib.decompress(stored) if "compressed" in fields else stored,
    )


def in_folder(folder: Path) -> dict[str, bytes]:
    """The vectors in a folder with a file for each."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_package(package: Path) -> dict[str, bytes]:
    """The vectors in the npm package, as it is packed."""
    with tarfile.open(package) as archive:
        module = archive.extractfile("package/index.js")
        assert module is not None
        text = module.read().decode()
    return {name: base64.b64decode(content) for name, content in _IN_PACKAGE.findall(text)}


def _found() -> Mapping[str, bytes]:
    named = os.environ.get("BACKUPS_AGE_TESTKIT")
    if named:
        return in_folder(Path(named))
    if BESIDE.is_dir():
        return in_folder(BESIDE)
    if PACKAGE.is_file():
        return in_package(PACKAGE)
    return {}


@cache
def vectors() -> dict[str, Vector]:
    """Every vector in scope by its name; none when they are not on this machine."""
    everything = [_parsed(name, content) for name, content in sorted(_found().items())]
    return {vector.name: vector for vector in everything if vector.is_in_scope}


def needs_vectors() -> dict[str, Vector]:
    """The vectors in scope. Where continuous integration runs, their absence is a failure."""
    if not vectors():
        where = "set BACKUPS_AGE_TESTKIT to their folder, or run `npm pack cctv-age@0.2.0` in tests/.cache"
        if os.environ.get("CI"):
            pytest.fail(f"the age test vectors are missing; {where}")
        pytest.skip(f"the age test vectors are missing; {where}")
    return vectors()
