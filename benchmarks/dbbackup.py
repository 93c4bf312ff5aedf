"""django-dbbackup in an environment of its own: a small Django site that has nothing else.

It is no dependency of this project: :func:`install` puts it into a folder below that of the
benchmark. Starting Python and Django is not measured, as it is not for our engine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .contender import COPY_NAME, ContenderError, make_durable, run_tool

VERSION = "5.4"
ENVIRONMENT = "WALSAFE_BENCHMARK_DBBACKUP"
"""Variable that tells the processes of a measurement where it is."""

_READY = "ready"

_SITE = """
import sys, time
from django.conf import settings
database, folder, *command = sys.argv[1:]
storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": folder}}
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
    INSTALLED_APPS=["dbbackup"],
    STORAGES={
        "default": storage,
        "dbbackup": storage,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    },
)
import django
django.setup()
from django.core.management import call_command
started = time.perf_counter()
call_command(*command, "--noinput", "--verbosity", "0")
print(time.perf_counter() - started)
"""


def is_made(work: Path) -> bool:
    """Whether the environment is there already."""
    return (_folder(work) / _READY).exists()


def install(work: Path) -> None:
    """Make the environment in ``work``, when it is not there yet, and let all later runs find it.

    Raises:
        ContenderError: pip could not install it.
    """
    folder = _folder(work)
    if not is_made(work):
        run_tool(sys.executable, "-m", "venv", "--clear", folder, seconds=120)
        packages = [f"django-dbbackup=={VERSION}.*", "Django==5.2.*"]
        pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run_tool(*pip, "--retries", "1", *packages, folder=work, seconds=300)
        (folder / _READY).touch()
    os.environ[ENVIRONMENT] = str(folder)


def _folder(work: Path) -> Path:
    return work / f"django-dbbackup-{VERSION}"


def is_installed() -> bool:
    """Whether :func:`install` has been called with success, by this process or the one that started it."""
    return bool(os.environ.get(ENVIRONMENT))


def create(database: Path, folder: Path) -> float:
    """``dbbackup -z``: its default connector and gzip, not encrypted, nothing checked."""
    seconds = _command(database, folder, "dbbackup", "-z")
    for written in folder.iterdir():  # the archive, and a file of facts beside it
        if written.is_file():
            make_durable(written)
    return seconds


def restore(store: Path, folder: Path) -> float:
    """``dbrestore -z`` into the database of a site that nobody uses."""
    target = folder / COPY_NAME
    seconds = _command(target, store, "dbrestore", "-z")
    make_durable(target)
    return seconds


def _command(database: Path, storage: Path, *command: str) -> float:
    if not is_installed():
        raise ContenderError("its environment was not made")
    python = Path(os.environ[ENVIRONMENT]) / "bin" / "python"
    return float(run_tool(python, "-c", _SITE, database, storage, *command).split()[-1])
