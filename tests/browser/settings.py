"""The console as the browser tests serve it: under a strict policy, encrypting where a key is named."""

import os

from project.settings import *  # noqa: F403
from project.settings import BACKUPS, MIDDLEWARE

MIDDLEWARE = ["tests.browser.policy.with_policy", *MIDDLEWARE]

_key_file = os.environ.get("BROWSER_KEY_FILE", "")
BACKUPS = {
    **BACKUPS,
    "AGE_RECIPIENTS": os.environ.get("BROWSER_RECIPIENTS", "").split(),
    **({"AGE_IDENTITY_FILE": _key_file} if _key_file else {}),
}
