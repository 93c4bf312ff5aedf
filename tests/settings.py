"""Settings of the test run: the console's own, in a folder that is thrown away."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_home = Path(tempfile.mkdtemp(prefix="walsafe-tests-"))
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ["BACKUPS_HOME"] = str(_home)

from project.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
