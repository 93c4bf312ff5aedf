"""``make audit``: insecure code, and known holes in what we depend on.

bandit looks at our code; whatever it finds must be mended, or justified at its line. pip-audit asks a service for
known holes; where that cannot be reached, this says so and does not pretend that anything was looked at.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.support import PROJECT


def bandit() -> list[dict[str, Any]]:
    """What bandit finds in the code that is shipped."""
    command = [sys.executable, "-m", "bandit", "--quiet", "--recursive", "--format", "json"]
    finished = subprocess.run(
        [*command, "--configfile", "pyproject.toml", "backups_app", "project", "manage.py"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    document = json.loads(finished.stdout)
    assert not document["errors"], document["errors"]
    found = document["results"]
    assert isinstance(found, list)
    return found


def pip_audit() -> dict[str, Any] | None:
    """What the service says of the pinned dependencies; None when the program or the service is out of reach."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", "requirements-dev.txt", "--disable-pip", "--no-deps"]
    finished = subprocess.run(
        [*command, "--format", "json", "--progress-spinner", "off"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    try:
        found = json.loads(finished.stdout)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def verdict(found: dict[str, Any] | None) -> tuple[str, bool]:
    """What to say of an answer of pip-audit, and whether something is wrong."""
    dependencies = [] if found is None else found["dependencies"]
    asked = [each for each in dependencies if "skip_reason" not in each]
    if not asked:
        return (
            "pip-audit: NOT DONE. Its service cannot be reached from here, so nothing is said of dependencies.",
            False,
        )
    holes = [f"{each['name']} {each['version']}: {hole['id']}" for each in asked for hole in each["vulns"]]
    skipped = len(dependencies) - len(asked)
    beside = f"; {skipped} could not be looked up" if skipped else ""
    return "\n".join([f"pip-audit: {len(asked)} dependencies, {len(holes)} known holes{beside}.", *holes]), bool(holes)


def main() -> int:
    """Report, and end with 1 when something must be mended."""
    findings = bandit()
    for each in findings:
        print(f"{each['filename']}:{each['line_number']}: {each['test_id']} {each['issue_text']}")
    print(f"bandit: {len(findings)} findings.")
    said, is_wrong = verdict(pip_audit())
    print(said)
    return 1 if findings or is_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
