"""Exit codes and JSON documents: the page says what the code does, key by key."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from backups_app.core import errors
from backups_app.core.errors import EXIT_CODES
from backups_app.verbs.status import NEEDS_ATTENTION
from tests.support import PROJECT

APP = PROJECT / "backups_app"
PAGE = (PROJECT / "docs" / "exit-codes-and-json.md").read_text("utf-8")

DOCUMENTS = {
    "backup_document": "A backup",
    "verification_document": "A verification",
    "pruning_document": "What prune decided",
    "new_key_document": "A new key",
    "key_document": "A key",
    "challenge_document": "A challenge",
    "lost_document": "An archive that nothing opens",
    "trial_document": "A test message",
    "judged_document": "A judged file",
    "database_document": "A database",
    "skipped_document": "An alias that is skipped",
    "extraction_document": "A restore to a file",
    "restore_document": "A restore",
    "job_document": "A job",
    "scheduled_run_document": "A run of a schedule",
    "rescan_document": "A rescan",
    "group_document": "A group of people",
    "health_document": "Health",
}
"""Each function of documents.py, and the section that tells its keys. A function without a line here fails."""


def section(heading: str) -> str:
    found = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert found, f"the page has no section {heading!r}"
    return found


def functions(path: Path) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def keys_in(node: ast.AST) -> Iterator[str]:
    """The constant keys of every dict that is written out below this node."""
    for each in ast.walk(node):
        if isinstance(each, ast.Dict):
            yield from (str(key.value) for key in each.keys if isinstance(key, ast.Constant))


def keys_of(name: str) -> set[str]:
    found = set(keys_in(functions(APP / "documents.py")[name]))
    if name == "judged_document":
        verdicts = ast.parse((APP / "core" / "triage" / "verdict.py").read_text("utf-8"))
        for node in ast.walk(verdicts):
            if isinstance(node, ast.FunctionDef) and node.name == "as_dict":
                found |= set(keys_in(node))
    return found


def documented(text: str) -> set[str]:
    """What stands in the first column of the tables."""
    cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_document_has_its_section():
    made = {name for name in functions(APP / "documents.py") if name.endswith("_document")}
    assert made == set(DOCUMENTS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_key_is_documented_and_none_else(name: str):
    text = section(DOCUMENTS[name])
    keys = keys_of(name)
    assert keys
    assert documented(text) <= keys, "the page names what is not there"
    assert keys <= set(re.findall(r"`(\w+)`", text)), "the page lacks a key"


def test_every_envelope_is_documented_and_none_else():
    made = {"errors"}
    for path in (APP / "verbs").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "output.document":
                made |= {
                    str(key.value)
                    for each in node.args
                    if isinstance(each, ast.Dict)
                    for key in each.keys
                    if isinstance(key, ast.Constant)
                }
    text = section("Envelopes")
    shown = set(re.findall(r'[{,] ?"(\w+)":', text))
    inner = {"dry_run", "kept", "deleted"}
    assert shown - inner == made


def test_every_exit_code_is_documented_and_none_else():
    rows = re.findall(r"^\| (\d+) \| [^|]+ \|$", section("Exit codes"), re.MULTILINE)
    assert sorted(map(int, rows)) == sorted({0, NEEDS_ATTENTION, *EXIT_CODES.values()})


def test_the_order_of_several_outcomes_is_the_documented_one():
    (order,) = re.findall(r"the first of ([\d, ]+) that happened", section("Exit codes"))
    assert tuple(map(int, order.split(", "))) == errors._PRIORITY
    assert set(errors._PRIORITY) == {0, NEEDS_ATTENTION, *EXIT_CODES.values()}


def test_every_failure_code_is_documented_with_its_exit_code():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| [^|]+ \|$", section("Exit codes"), re.MULTILINE)
    assert {code: int(exit_code) for code, exit_code in rows} == EXIT_CODES


def test_the_help_of_the_command_names_every_exit_code():
    from backups_app.management.commands.backup import _EPILOG

    assert set(map(int, re.findall(r"\b(\d+) [a-z]", _EPILOG))) == {0, NEEDS_ATTENTION, *EXIT_CODES.values()}
