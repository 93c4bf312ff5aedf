"""``make audit``: our code is clean, and an audit that did not happen is not called clean."""

from __future__ import annotations

import re

from tests.security import audit
from tests.support import PROJECT


def test_bandit_finds_nothing_that_is_not_justified():
    assert [f"{each['filename']}:{each['line_number']} {each['test_id']}" for each in audit.bandit()] == []


def test_what_is_justified_names_its_rule_and_ruff_looks_there_too():
    marked = []
    for path in [*(PROJECT / "backups_app").rglob("*.py"), *(PROJECT / "project").rglob("*.py")]:
        for line in path.read_text("utf-8").split("\n"):
            if "# nosec" in line:
                marked.append(line)
                assert re.search(r"# nosec B\d{3}( B\d{3})*$", line), line
    assert 10 <= len(marked) < 25, "each one is a decision"


def test_an_audit_that_did_not_happen_is_not_called_clean():
    skipped = {"dependencies": [{"name": "a", "version": "1", "skip_reason": "not found"}]}
    for found in (None, skipped):
        said, is_wrong = audit.verdict(found)
        assert ("NOT DONE" in said, is_wrong) == (True, False)


def test_a_known_hole_fails_the_audit():
    sound = {"name": "a", "version": "1", "vulns": []}
    assert audit.verdict({"dependencies": [sound]}) == ("pip-audit: 1 dependencies, 0 known holes.", False)
    broken = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1"}]}
    said, is_wrong = audit.verdict({"dependencies": [sound, broken]})
    assert ("b 2: PYSEC-1" in said, is_wrong) == (True, True)
