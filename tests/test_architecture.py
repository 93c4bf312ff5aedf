"""Arrows go one way: admin and verbs → services → destinations, models → core."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import PROJECT

APP = PROJECT / "backups_app"


def module_name(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(*folders: str) -> list[Path]:
    """The Python files of some parts of the app."""
    found = [
        path
        for folder in folders
        for path in ([APP / folder] if folder.endswith(".py") else (APP / folder).rglob("*.py"))
    ]
    assert found, folders
    return sorted(found)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, with relative names resolved."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def offences(paths: list[Path], *forbidden: str) -> list[str]:
    """The imports of these files that lie in a forbidden package."""
    return [
        f"{module_name(path)} imports {name}"
        for path in paths
        for name in imports(path)
        if any(name == each or name.startswith(f"{each}.") for each in forbidden)
    ]


UPPER = (
    "backups_app.admin",
    "backups_app.verbs",
    "backups_app.management",
    "backups_app.monitoring",
    "backups_app.demo",
)


def test_the_walk_sees_relative_and_nested_imports():
    found = set(imports(APP / "services" / "create.py"))
    assert {"backups_app.conf", "backups_app.core.create", "backups_app.models", "django.utils"} <= found
    assert "backups_app.services.heal.heal_interrupted" in found
    assert offences([APP / "services" / "create.py"], "backups_app.core")


def test_the_engine_knows_nothing_of_the_framework_or_of_the_rest_of_the_app():
    paths = modules("core")
    assert offences(paths, "django", "django_q", "project") == []
    ours = [f"{module_name(path)} imports {name}" for path in paths for name in imports(path) if _is_above(name)]
    assert ours == []


def _is_above(name: str) -> bool:
    return name == "backups_app" or (
        name.startswith("backups_app.") and name != "backups_app.core" and not name.startswith("backups_app.core.")
    )


def test_the_engine_needs_only_the_libraries_that_are_named():
    libraries = {name.split(".")[0] for path in modules("core") for name in imports(path)}
    assert libraries - sys.stdlib_module_names - {"backups_app"} <= {"backports", "compression", "cryptography", "rich"}


def test_the_keeper_of_processes_knows_nothing_of_the_framework():
    """It must start before Django, and in a process that is being forked there is no time for it."""
    keepers = modules("jobs/supervisor.py", "jobs/bound.py")
    assert offences(keepers, "django", "django_q", "project", "backups_app.services", "backups_app.models") == []
    assert [name for name in imports(APP / "jobs" / "bound.py") if name.startswith("backups_app")] == []


def test_jobs_know_nothing_of_services_and_of_who_calls_them():
    assert offences(modules("jobs"), "backups_app.services", "backups_app.documents", *UPPER) == []


def test_models_are_rows_and_nothing_else():
    others = [f"backups_app.{name}" for name in ("services", "core", "destinations", "documents", "conf", "checks")]
    assert offences(modules("models"), *UPPER, *others) == []
    assert offences(modules("models"), "os", "pathlib", "sqlite3", "shutil", "subprocess") == []


def test_the_queue_seam_stands_below_the_services():
    above = ("backups_app.services", "backups_app.documents", "backups_app.tasks", *UPPER)
    assert offences(modules("jobs"), *above, "argparse", "rich", "django.http") == []


def test_only_the_queue_seam_knows_the_queue():
    paths = [path for path in APP.rglob("*.py") if "jobs" not in path.relative_to(APP).parts]
    assert offences(paths, "django_q") == []


def test_services_know_nothing_of_who_calls_them():
    assert offences(modules("services"), *UPPER, "backups_app.documents", "argparse", "rich", "django.http") == []


def test_what_services_stand_on_knows_nothing_of_services():
    below = modules("conf.py", "destinations", "encryption.py", "routers.py", "checks.py")
    assert offences(below, "backups_app.services", "backups_app.documents", *UPPER) == []


def test_nothing_imports_the_admin():
    paths = [path for path in APP.rglob("*.py") if "admin" not in path.relative_to(APP).parts]
    assert offences(paths, "backups_app.admin") == []


def test_the_screens_and_the_command_do_not_know_each_other():
    assert offences(modules("admin"), "backups_app.verbs", "backups_app.management") == []
    assert offences(modules("verbs", "management"), "backups_app.admin", "django.contrib.admin") == []
    assert offences(modules("monitoring"), "backups_app.admin", "backups_app.verbs", "django.contrib.admin") == []


def test_only_one_module_needs_the_library_of_metrics():
    paths = [path for path in APP.rglob("*.py") if path.name != "prometheus.py"]
    assert offences(paths, "prometheus_client") == []


# The demo starts a server and a writer process; its file work lies in backups_app/demo.
EDGES = [path for path in modules("verbs", "admin", "management", "monitoring") if path.name != "demo.py"]


@pytest.mark.parametrize("path", EDGES, ids=module_name)
def test_the_edges_do_no_work_of_the_engine(path: Path):
    work = (
        "sqlite3",
        "hashlib",
        "shutil",
        "tempfile",
        "subprocess",
        "fcntl",
        "cryptography",
        "backports",
        "compression",
    )
    assert offences([path], *work) == []
    engine = [
        name
        for name in imports(path)
        if name.startswith("backups_app.core.")
        and name.split(".")[2] not in {"errors", "terminal", "verify", "manifest", "sqlite"}
    ]
    assert engine == []


@pytest.mark.parametrize("path", EDGES, ids=module_name)
def test_the_edges_open_and_write_no_file(path: Path):
    forbidden = {"open", "read_bytes", "write_bytes", "read_text", "write_text", "unlink", "rename", "rmtree", "mkdir"}
    called = {
        node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
    }
    if path.parts[-3:] == ("management", "commands", "backup.py"):
        called.discard("open")  # os.open of the null device, after the reader of a pipe left
    assert called & forbidden == set()


@pytest.mark.parametrize("path", EDGES, ids=module_name)
def test_the_edges_write_no_row(path: Path):
    writing = {"create", "bulk_create", "update_or_create", "get_or_create", "update", "save", "delete"}
    called = {
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and "objects" in ast.unparse(node.func.value)
    }
    assert called & writing == set()


def test_a_live_database_is_never_opened_as_a_file_outside_the_engine():
    paths = [path for path in modules("services") if path.name != "audit.py"]
    for path in paths:
        calls = [
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
        ]
        assert not {"open", "os.open", "shutil.copy", "shutil.copyfile", "shutil.copy2"} & set(calls), path


def test_every_verb_is_one_module_and_every_module_is_a_verb():
    from backups_app.management.commands.backup import VERBS

    shared = {"__init__", "arguments", "enqueue", "find", "identity", "output", "restores"}
    found = {path.stem for path in (APP / "verbs").glob("*.py")} - shared
    assert found == {name.replace("-", "_") for name in VERBS}


@pytest.mark.parametrize("path", sorted(APP.rglob("*.py")), ids=module_name)
def test_every_module_says_what_it_is_for(path: Path):
    if path.read_text("utf-8").strip() and "migrations" not in path.parts:
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path
