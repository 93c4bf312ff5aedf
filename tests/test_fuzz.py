"""Anything at all given to whatever reads: only errors of ours, soon, in little memory, and no trace.

The seeds are in ``corpus/``; each example is one of them, cut, overwritten, doubled or joined with
another, or plain noise. ``WALSAFE_SOAK=1`` in the environment tries fifty times as many.
"""

from __future__ import annotations

import io
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backups_app.core.age import FileKey, decrypt
from backups_app.core.archive import read_archive
from backups_app.core.errors import EXIT_CODES, BackupError
from backups_app.core.extract import extract_file, inspect_file
from backups_app.core.legacy import decrypt_container
from backups_app.core.manifest import Manifest
from backups_app.core.progress import Watch
from backups_app.management.commands.backup import VERBS
from tests.judging import judged
from tests.support import names_in

CORPUS = {
    path.name: path.read_bytes()
    for path in sorted((Path(__file__).parent / "corpus").iterdir())
    if "README" not in path.name
}
SECONDS = 5.0
MEMORY_BYTES = 256 << 20
FACTOR = 50 if os.environ.get("WALSAFE_SOAK") else 1


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A seed of the corpus after up to four changes, or noise."""
    content = draw(st.sampled_from(list(CORPUS.values())) | st.binary(max_size=200))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["cut", "put", "insert", "drop", "double", "join", "number"]))
        piece = draw(st.binary(min_size=1, max_size=8))
        content = {
            "cut": content[:at],
            "put": content[:at] + piece + content[at + len(piece) :],
            "insert": content[:at] + piece + content[at:],
            "drop": content[:at] + content[at + len(piece) :],
            "double": content[:at] + content[:at],
            "join": content + draw(st.sampled_from(list(CORPUS.values()))),
            "number": content[:at] + b"\xff" * len(piece) + content[at + len(piece) :],
        }[kind]
    return content


def fuzzed(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The decorators of every test here; each seed as it is comes first."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        test = given(mutants())(test)
        for seed in CORPUS.values():
            test = example(seed)(test)
        return settings(
            deadline=None,
            max_examples=examples * FACTOR,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        )(test)

    return decorate


@contextmanager
def bounded() -> Iterator[Path]:
    """A folder; what is done must end soon, in bounded memory, with an error of ours or none."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    raised: BackupError | None = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Path(folder)
        except BackupError as exc:
            raised = exc
    assert raised is None or (raised.code in EXIT_CODES and raised.message)
    assert time.monotonic() - started < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY_BYTES


@fuzzed(300)
def test_archives(content: bytes):
    with bounded():
        read = read_archive(io.BytesIO(content), limit_bytes=1 << 20, total_bytes=len(content), watch=Watch())
        assert read.archive_bytes == len(content)
        assert read.content_bytes <= (1 << 20) + (1 << 20)


@fuzzed(60)
def test_archive_files_without_a_catalogue(content: bytes):
    with bounded() as folder:
        archive, target = folder / "shop.sqlite3.zst", folder / "out" / "shop.sqlite3"
        archive.write_bytes(content)
        target.parent.mkdir()
        try:
            extract_file(archive, target, watch=Watch())
        except BackupError:
            assert names_in(target.parent) == set()
            inspect_file(archive, scratch=target.parent, watch=Watch())
        else:
            assert names_in(target.parent) == {target.name}


@fuzzed(300)
def test_manifests(content: bytes):
    with bounded():
        assert Manifest.from_bytes(content).to_bytes() == content


@fuzzed(300)
def test_age_files(content: bytes):
    with bounded():
        whole = b"content " * 20
        for piece in decrypt([content], file_key=FileKey(b"f" * 16)):
            assert whole.startswith(piece)


@fuzzed(150)
def test_legacy_containers(content: bytes):
    with bounded() as folder:
        try:
            decrypt_container(
                io.BytesIO(content), folder / "out", size_bytes=len(content), keys=[b"k" * 32], watch=Watch()
            )
        except BackupError:
            assert names_in(folder) == set()
            raise
        assert (folder / "out").read_bytes() == CORPUS["shop.sqlite3"][:1024]


@fuzzed(60)
def test_triage(content: bytes):
    with bounded() as folder:
        (folder / "old").mkdir()
        (folder / "scratch").mkdir()
        (folder / "old" / "file").write_bytes(content)
        assert judged(folder / "old" / "file", folder / "scratch", watch=Watch(deadline_seconds=SECONDS)).verdict


# The command line

WORDS = [
    *(name for name in VERBS if name not in ("serve", "demo")),
    *("--json", "--yes", "--all", "--to", "--into", "--reason", "--user", "--level", "full", "--note", "--enqueue"),
    *("", "-", "--", "-1", "0", "shop", "default", "zzzz", "/nonexistent/x", "../x", "\udcff", "\x00", "é", "%s", "{}"),
]


@pytest.mark.usefixtures("home", "db_catalog")
@settings(deadline=None, max_examples=150 * FACTOR, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=6), max_size=6))
def test_arguments(words: list[str]):
    verb = next((word for word in words if not word.startswith("-")), "")
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            if verb not in ("serve", "demo"):
                call_command("backup", *words, stdout=out, stderr=err)
        except SystemExit as exc:
            code = int(exc.code or 0)
        except CommandError as exc:  # what argparse says, when it is not the program itself that runs
            code = exc.returncode
    assert code in {0, 2, 8, *EXIT_CODES.values()} | {1}
    assert "Traceback" not in out.getvalue() + err.getvalue()
