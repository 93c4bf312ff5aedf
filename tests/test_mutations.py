"""Ten lines that carry a promise: each is broken in a copy of the tree, and a test there must notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import PROJECT

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Mutation:
    """A promise, the line that keeps it, what breaks it, and the test that says so."""

    promise: str
    file: str
    line: str
    broken: str
    test: str


MUTATIONS = [
    Mutation(
        "the view is pinned before the copy",
        "core/sqlite.py",
        '    connection.execute("BEGIN")\n    try:\n        wait_for_lock(',
        "    try:\n        wait_for_lock(",
        "tests/core/test_snapshot.py::test_what_is_committed_during_the_copy_is_not_in_it",
    ),
    Mutation(
        "an archive is synced before it gets its name",
        "core/archive.py",
        "        os.fsync(self._target.fileno())",
        "        pass",
        "tests/services/test_durable.py",
    ),
    Mutation(
        "a stored archive is read back",
        "services/publish.py",
        "        checks = prove_stored(open_stored, created.archive, watch=watch, made=created)",
        "        checks: list[Check] = []",
        "tests/services/test_durable.py::test_a_store_that_changes_a_bit_is_found_out_and_nothing_is_kept",
    ),
    Mutation(
        "the census of the copy is that of the source",
        "core/verify.py",
        "    differences = expected.differences(found) if expected else []",
        "    differences = []",
        "tests/core/test_verify.py::test_a_schema_without_rows_is_found_by_the_census",
    ),
    Mutation(
        "a job is claimed once",
        "jobs/claim.py",
        "Job.objects.filter(pk=job_id, state=Job.State.QUEUED).update(",
        "Job.objects.filter(pk=job_id).update(",
        "tests/services/jobs/test_run.py::test_of_two_who_claim_a_job_one_gets_it",
    ),
    Mutation(
        "a safety backup comes before a restore",
        "services/restores/run.py",
        "            problem = self._make_safety_backup()",
        '            problem = ""',
        "tests/services/restores/test_run.py::test_the_safety_backup_is_verified_held_and_holds_what_was_there",
    ),
    Mutation(
        "nobody approves their own request",
        "services/restores/decide.py",
        '    if is_self and conf.get("FOUR_EYES"):',
        "    if False:",
        "tests/services/restores/test_decide.py::test_nobody_approves_their_own_request",
    ),
    Mutation(
        "a checkpoint does not lock writers out while it waits for readers",
        "core/restore.py",
        "_TRUNCATE_WAIT_SECONDS = 0.1",
        "_TRUNCATE_WAIT_SECONDS = 1",
        "tests/core/test_restore.py::test_a_reader_that_stays_does_not_make_writers_wait_for_the_checkpoint",
    ),
    Mutation(
        "a failed archive is removed",
        "core/archive.py",
        "        except BaseException:\n            destination.unlink(missing_ok=True)\n            raise",
        "        except BaseException:\n            raise",
        "tests/core/test_archive.py::test_a_full_disk_while_compressing_is_said_and_nothing_is_left",
    ),
    Mutation(
        "a lock is taken",
        "core/files.py",
        "                fcntl.flock(descriptor, kind | (0 if blocking else fcntl.LOCK_NB))",
        "                pass",
        "tests/core/test_files.py::test_a_lock_is_held_by_one_and_free_afterwards",
    ),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the tests need; it is the copy that is imported there."""
    copy = tmp_path_factory.mktemp("mutations") / "tree"
    copy.mkdir()
    for name in ("backups_app", "project", "templates", "tests"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".cache"))
    for name in ("manage.py", "pyproject.toml"):
        shutil.copy(PROJECT / name, copy / name)
    return copy


def run_tests(tree: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests of the copy in a process of their own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "BACKUPS_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider", *tests]
    return subprocess.run(
        command,
        cwd=tree,
        env={**inherited, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


def test_unbroken_all_of_them_pass(tree: Path):
    finished = run_tests(tree, *{each.test for each in MUTATIONS})
    assert finished.returncode == 0, finished.stdout[-4000:]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.promise)
def test_a_broken_promise_is_noticed(tree: Path, mutation: Mutation):
    path = tree / "backups_app" / mutation.file
    original = path.read_text()
    assert original.count(mutation.line) == 1, f"the line is not there once any more: {mutation.line}"
    path.write_text(original.replace(mutation.line, mutation.broken))
    try:
        finished = run_tests(tree, mutation.test)
    finally:
        path.write_text(original)
    assert finished.returncode == 1, finished.stdout[-4000:]  # 1 is that tests failed; 2 and more that none could run
    assert " failed" in finished.stdout
