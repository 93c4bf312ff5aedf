"""Settings of the test run: the console's own, in a folder that is thrown away.

``WALSAFE_TEST_CATALOG_URL`` puts the catalogue of tests inside this process on PostgreSQL; commands that
tests start as processes keep their own on SQLite.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_home = Path(tempfile.mkdtemp(prefix="walsafe-tests-"))
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ["BACKUPS_HOME"] = str(_home)

from backups_app.catalog_url import catalog_from_url  # noqa: E402
from project.settings import *  # noqa: E402, F403
from project.settings import DATABASES  # noqa: E402

if _url := os.environ.get("WALSAFE_TEST_CATALOG_URL"):
    DATABASES["catalog"] = catalog_from_url(_url, source="WALSAFE_TEST_CATALOG_URL")

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
