"""The engine lives without Django: recovery must work where nothing else is installed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import PROJECT, run_python

CORE = PROJECT / "backups_app" / "core"
MODULES = sorted(CORE.glob("**/*.py"))

ALLOWED = {"rich", "backports", "compression", "cryptography"}
"""What the engine may import beside Python's own library and itself."""


def imported_modules(path: Path) -> Iterator[str]:
    """Full names of everything that a file imports, at any depth of its code."""
    package = path.relative_to(PROJECT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            yield ".".join((*base, *(node.module or "").split("."))).rstrip(".")


def test_the_walk_sees_the_modules_of_the_engine():
    assert {"__main__.py", "archive.py", "snapshot.py", "verify.py"} <= {path.name for path in MODULES}
    assert "backups_app.core.errors" in set(imported_modules(CORE / "archive.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_of_the_engine_imports_only_the_engine_and_what_recovery_needs(path: Path):
    foreign = {
        name
        for name in imported_modules(path)
        if not (name + ".").startswith("backups_app.core.")
        and name.split(".")[0] not in sys.stdlib_module_names
        and name.split(".")[0] not in ALLOWED
    }
    assert foreign == set()


def test_the_recovery_program_loads_no_django():
    program = (
        "import sys, backups_app.core.__main__\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('django', 'django_q', 'asgiref')])"
    )
    assert run_python(program).stdout.strip() == "[]"
