"""A site of somebody else that embeds the app, as small as can be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.console import environment
from tests.support import PROJECT, build_shop

_SETTINGS = """
from pathlib import Path
BASE_DIR = Path(__file__).parent
SECRET_KEY = "x" * 50
USE_TZ = True
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_q", "backups_app"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "shop.sqlite3"},
    "catalog": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "var" / "catalog.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    },
}
DATABASE_ROUTERS = ["backups_app.routers.CatalogRouter"]
Q_CLUSTER = {"orm": "catalog", "timeout": 23400, "retry": 25200, "max_attempts": 1, "ack_failures": True}
BACKUPS = {"HOME": BASE_DIR / "var"}
"""


def run_embedded(folder: Path, *arguments: str) -> str:
    """Run a verb in such a site, made on first use; returns what it printed."""
    if not (folder / "shop_settings.py").exists():
        (folder / "shop_settings.py").write_text(_SETTINGS)
        build_shop(folder / "shop.sqlite3")
    finished = subprocess.run(
        [sys.executable, "-m", "django", "backup", *arguments],
        cwd=folder,
        env=environment(folder / "var", DJANGO_SETTINGS_MODULE="shop_settings", PYTHONPATH=f"{folder}:{PROJECT}"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout
