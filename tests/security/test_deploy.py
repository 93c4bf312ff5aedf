"""The production example of docs/running.md: nothing to complain of, and HTTPS means HTTPS."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backups_app.core.sqlite import has_wal_reset_bug
from tests.console import environment
from tests.pages import parse
from tests.support import PROJECT


def example() -> dict[str, str]:
    """The environment that the page shows."""
    (block,) = [each for each in parse(PROJECT / "docs" / "running.md").blocks if "file" in each.directives]
    assert block.directives["file"] == "/etc/walsafe.env"
    found = dict(line.split("=", 1) for line in block.text.split("\n") if line)
    del found["BACKUPS_HOME"]
    return found


def check(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "check", "--deploy", *arguments],
        cwd=PROJECT,
        env=environment(home, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_example_for_production_has_no_warning(tmp_path: Path):
    found = check(tmp_path / "home", "--tag", "security", "--fail-level", "WARNING", **example())
    assert (found.returncode, found.stdout.strip()) == (0, "System check identified no issues (0 silenced).")
    everything = check(tmp_path / "home", **example())
    ids = set(re.findall(r"\((\w+\.\w\d+)\)", everything.stdout + everything.stderr))
    assert (everything.returncode, ids) == (0, {"backups.W002"} if has_wal_reset_bug() else set())


def test_without_the_example_the_check_does_complain(tmp_path: Path):
    found = check(tmp_path / "home", "--tag", "security", "--fail-level", "WARNING")
    assert found.returncode == 1
    assert {"security.W004", "security.W008", "security.W012", "security.W016"} <= set(
        re.findall(r"security\.W\d+", found.stderr)
    )


_ASK = """
import json, os, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
django.setup()
from django.test import Client
def asked(path, **headers):
    answer = Client().get(path, headers={"Host": "backups.example.org", **headers})
    return [answer.status_code, answer.get("Location", ""), answer.get("Strict-Transport-Security", "")]
print(json.dumps([asked("/admin/login/"), asked("/healthz"),
    asked("/admin/login/", **{"X-Forwarded-Proto": "https"})]))
"""


@pytest.mark.parametrize("proxy", ["1", ""])
def test_plain_requests_are_sent_to_https_and_only_a_trusted_proxy_says_otherwise(tmp_path: Path, proxy: str):
    variables = {**example(), "DJANGO_SECURE_PROXY": proxy}
    finished = subprocess.run(
        [sys.executable, "-c", _ASK],
        cwd=PROJECT,
        env=environment(tmp_path / "home", **variables),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    plain, probe, forwarded = json.loads(finished.stdout)
    assert plain == [301, "https://backups.example.org/admin/login/", ""]
    assert probe == [200, "", ""]
    expected = [200, "", "max-age=31536000; includeSubDomains; preload"] if proxy else plain
    assert forwarded == expected
